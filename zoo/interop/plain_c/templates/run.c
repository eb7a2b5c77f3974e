/* Images from standard input, one after the other -> their logits' codes, int16_t, on standard output. */
#include <stdio.h>

#include "${name}.h"

int main(void)
{
    static int16_t logits[${NAME}_CLASSES];
    uint8_t *image = ${name}_image();
    size_t got;
    while ((got = fread(image, 1, ${NAME}_IMAGE_BYTES, stdin)) == ${NAME}_IMAGE_BYTES) {
        ${name}_run(image, logits);
        if (fwrite(logits, sizeof logits, 1, stdout) != 1)
            return 1;
    }
    if (got > 0)
        fprintf(stderr, "the last image has %lu of %d bytes\n", (unsigned long)got, ${NAME}_IMAGE_BYTES);
    return got > 0;
}
