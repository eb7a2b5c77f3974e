/* A function of one value, by a table of 256. input and output may be the same memory. */
static void look_up(const uint8_t *table, int32_t size, const uint8_t *input, uint8_t *output)
{
    int32_t i;
    for (i = 0; i < size; i++)
        output[i] = table[input[i]];
}
