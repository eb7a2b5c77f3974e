/* The mean of each map: [channels][area] to [channels]. */
typedef struct {
    int32_t channels, area;
    int32_t zero; /* the input's code of 0 */
    int32_t multiplier, shift;
    range limits;
} averaging;

static void average_maps(const averaging *layer, const uint8_t *map, target output)
{
    int32_t channel, place;
    for (channel = 0; channel < layer->channels; channel++, map += layer->area) {
        int32_t sum = 0;
        for (place = 0; place < layer->area; place++)
            sum += map[place] - layer->zero;
        put(output, channel, shift_down((int64_t)sum * layer->multiplier, layer->shift), &layer->limits);
    }
}
