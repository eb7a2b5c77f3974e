static void copy(int32_t size, const uint8_t *input, uint8_t *output)
{
    int32_t i;
    for (i = 0; i < size; i++)
        output[i] = input[i];
}
