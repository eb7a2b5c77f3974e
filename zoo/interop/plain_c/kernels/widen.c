/* Codes of 8 bits as logits. */
static void widen(int32_t size, const uint8_t *input, int16_t *output)
{
    int32_t i;
    for (i = 0; i < size; i++)
        output[i] = input[i];
}
