/* [channels][height][width] to [filters][rows][columns]; filter by filter the weights of channels / groups maps. */
typedef struct {
    int32_t channels, height, width, filters, rows, columns;
    int32_t kernel_height, kernel_width, stride_y, stride_x, pad_y, pad_x, groups;
    int32_t zero; /* the input's code of 0 */
    const int8_t *weights;
    const int32_t *bias, *multipliers;
    const uint8_t *shifts;
    range limits;
} convolution;

enum { PLACES = 16, FILTERS = 8 }; /* of the output that are worked on together: their sums take 512 bytes of stack */

/* What one weight of each filter meets at each of some places, less the code of 0; outside of the map that is 0. */
static void gather(const convolution *layer, const uint8_t *map, const int32_t *tops, const int32_t *lefts,
                   int32_t ky, int32_t kx, int16_t *met)
{
    int32_t i;
    for (i = 0; i < PLACES; i++) {
        const int32_t y = tops[i] + ky, x = lefts[i] + kx;
        const int inside = y >= 0 && y < layer->height && x >= 0 && x < layer->width;
        met[i] = (int16_t)(inside ? map[y * layer->width + x] - layer->zero : 0);
    }
}

/* The sums of some filters of one group at PLACES places, of which `first` is the first. */
static void sum_products(const convolution *layer, const uint8_t *maps, int32_t first, int32_t filter, int32_t filters,
                         int32_t sums[FILTERS][PLACES])
{
    const int32_t depth = layer->channels / layer->groups;
    const int32_t taps = depth * layer->kernel_height * layer->kernel_width;
    const int8_t *weight = layer->weights + filter * taps;
    int32_t tops[PLACES], lefts[PLACES], f, i, channel, ky, kx;
    int16_t met[PLACES];
    for (i = 0; i < PLACES; i++) {
        tops[i] = (first + i) / layer->columns * layer->stride_y - layer->pad_y;
        lefts[i] = (first + i) % layer->columns * layer->stride_x - layer->pad_x;
    }
    for (f = 0; f < filters; f++)
        for (i = 0; i < PLACES; i++)
            sums[f][i] = layer->bias ? layer->bias[filter + f] : 0;
    for (channel = 0; channel < depth; channel++, maps += layer->height * layer->width)
        for (ky = 0; ky < layer->kernel_height; ky++)
            for (kx = 0; kx < layer->kernel_width; kx++, weight++) {
                gather(layer, maps, tops, lefts, ky, kx, met);
                for (f = 0; f < filters; f++) {
                    const int16_t factor = weight[f * taps];
                    for (i = 0; i < PLACES; i++)
                        sums[f][i] += (int32_t)factor * met[i];
                }
            }
}

static void convolve(const convolution *layer, const uint8_t *input, target output)
{
    const int32_t area = layer->rows * layer->columns, share = layer->filters / layer->groups;
    const int32_t bytes = layer->channels / layer->groups * layer->height * layer->width; /* of one group's maps */
    int32_t sums[FILTERS][PLACES], group, first, filter, f, i;
    for (group = 0; group < layer->groups; group++)
        for (first = 0; first < area; first += PLACES)
            for (filter = 0; filter < share; filter += FILTERS) {
                const int32_t filters = share - filter < FILTERS ? share - filter : FILTERS;
                const int32_t places = area - first < PLACES ? area - first : PLACES;
                const int32_t start = group * share + filter;
                sum_products(layer, input + group * bytes, first, start, filters, sums);
                for (f = 0; f < filters; f++)
                    for (i = 0; i < places; i++) {
                        const int64_t product = (int64_t)sums[f][i] * layer->multipliers[start + f];
                        const int32_t place = (start + f) * area + first + i;
                        put(output, place, shift_down(product, layer->shifts[start + f]), &layer->limits);
                    }
            }
}
