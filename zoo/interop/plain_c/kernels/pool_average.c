/* The mean of each window, halves away from 0; padding has the value 0 where it counts. */
static void pool_average(const pooling *layer, const uint8_t *map, uint8_t *output)
{
    int32_t channel, row, column, y, x;
    for (channel = 0; channel < layer->channels; channel++, map += layer->height * layer->width)
        for (row = 0; row < layer->rows; row++)
            for (column = 0; column < layer->columns; column++) {
                const span down = part_inside(row * layer->stride_y - layer->pad_y, layer->kernel_height,
                                              layer->height, layer->pad_y);
                const span across = part_inside(column * layer->stride_x - layer->pad_x, layer->kernel_width,
                                                layer->width, layer->pad_x);
                const int32_t inside = (down.to - down.from) * (across.to - across.from);
                const int32_t count = layer->count_padding ? down.count * across.count : inside;
                int32_t sum = 0;
                for (y = down.from; y < down.to; y++)
                    for (x = across.from; x < across.to; x++)
                        sum += map[y * layer->width + x] - layer->zero;
                sum = sum < 0 ? -((count - 2 * sum) / (2 * count)) : (2 * sum + count) / (2 * count);
                *output++ = (uint8_t)(sum + layer->zero);
            }
}
