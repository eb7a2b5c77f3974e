static void fill(int32_t size, uint8_t code, uint8_t *output)
{
    int32_t i;
    for (i = 0; i < size; i++)
        output[i] = code;
}
