/* Every step_y-th row and step_x-th column of each map, from the first. */
static void subsample(int32_t channels, int32_t height, int32_t width, int32_t step_y, int32_t step_x,
                      const uint8_t *map, uint8_t *output)
{
    int32_t channel, y, x;
    for (channel = 0; channel < channels; channel++, map += height * width)
        for (y = 0; y < height; y += step_y)
            for (x = 0; x < width; x += step_x)
                *output++ = map[y * width + x];
}
