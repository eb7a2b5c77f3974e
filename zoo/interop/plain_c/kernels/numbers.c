/* Codes a kernel writes: 8 bits to the next layer, or 16 bits as logits. One of the two is NULL. */
typedef struct {
    uint8_t *codes;
    int16_t *logits;
} target;

/* How a result becomes a code: add the code of 0, then cut off what is below low or above high. */
typedef struct {
    int32_t zero, low, high;
} range;

static void put(target output, int32_t place, int64_t value, const range *limits)
{
    int64_t code = value + limits->zero;
    if (code < limits->low)
        code = limits->low;
    if (code > limits->high)
        code = limits->high;
    if (output.codes)
        output.codes[place] = (uint8_t)code;
    else
        output.logits[place] = (int16_t)code;
}

/* number / 2^shift rounded to the nearest, halves upwards. C leaves >> of a negative number open, so there is none. */
static int64_t shift_down(int64_t number, int32_t shift)
{
    number += (int64_t)1 << (shift - 1);
    return number >= 0 ? number >> shift : ~(~number >> shift);
}
