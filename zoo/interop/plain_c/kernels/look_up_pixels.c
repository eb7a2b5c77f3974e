/* The image's pixels as codes, by a table of 256 for each channel. codes and image may be the same memory. */
static void look_up_pixels(const uint8_t *tables, int32_t channels, int32_t area, const uint8_t *image, uint8_t *codes)
{
    int32_t channel, place;
    for (channel = 0; channel < channels; channel++, tables += 256, image += area, codes += area)
        for (place = 0; place < area; place++)
            codes[place] = tables[image[place]];
}
