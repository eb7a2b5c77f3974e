/* A linear layer: [inputs] to [outputs]. */
typedef struct {
    int32_t inputs, outputs;
    int32_t zero; /* the input's code of 0 */
    const int8_t *weights;
    const int32_t *bias, *multipliers;
    const uint8_t *shifts;
    range limits;
} linear;

static void connect(const linear *layer, const uint8_t *input, target output)
{
    const int8_t *weight = layer->weights;
    int32_t f, i;
    for (f = 0; f < layer->outputs; f++) {
        int32_t sum = layer->bias ? layer->bias[f] : 0;
        for (i = 0; i < layer->inputs; i++)
            sum += *weight++ * (input[i] - layer->zero);
        put(output, f, shift_down((int64_t)sum * layer->multipliers[f], layer->shifts[f]), &layer->limits);
    }
}
