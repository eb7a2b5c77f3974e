static void pool_largest(const pooling *layer, const uint8_t *map, uint8_t *output)
{
    int32_t channel, row, column, y, x;
    for (channel = 0; channel < layer->channels; channel++, map += layer->height * layer->width)
        for (row = 0; row < layer->rows; row++)
            for (column = 0; column < layer->columns; column++) {
                const span down =
                    part_inside(row * layer->stride_y - layer->pad_y, layer->kernel_height, layer->height, 0);
                const span across =
                    part_inside(column * layer->stride_x - layer->pad_x, layer->kernel_width, layer->width, 0);
                uint8_t largest = 0;
                for (y = down.from; y < down.to; y++)
                    for (x = across.from; x < across.to; x++)
                        if (map[y * layer->width + x] > largest)
                            largest = map[y * layer->width + x];
                *output++ = largest;
            }
}
