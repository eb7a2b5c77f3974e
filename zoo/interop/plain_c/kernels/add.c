/* The sum of two of the same size. */
typedef struct {
    int32_t size;
    int32_t zero, multiplier;             /* of the first: its code of 0 */
    int32_t other_zero, other_multiplier; /* of the second */
    int32_t shift;
    range limits;
} addition;

static void add(const addition *layer, const uint8_t *one, const uint8_t *other, target output)
{
    int32_t i;
    for (i = 0; i < layer->size; i++) {
        const int64_t sum = (int64_t)(one[i] - layer->zero) * layer->multiplier +
                            (int64_t)(other[i] - layer->other_zero) * layer->other_multiplier;
        put(output, i, shift_down(sum, layer->shift), &layer->limits);
    }
}
