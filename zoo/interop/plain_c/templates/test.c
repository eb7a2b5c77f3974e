/* Compares the logits of the test vectors, code by code. Exit status 1 if one differs. */
#include <stdio.h>

#include "${name}.h"
#include "${name}_vectors.h"

int main(void)
{
    static int16_t logits[${NAME}_CLASSES];
    int wrong = 0, image, i;
    for (image = 0; image < ${NAME}_VECTORS; image++) {
        ${name}_run(${name}_images[image], logits);
        for (i = 0; i < ${NAME}_CLASSES; i++)
            if (logits[i] != ${name}_logits[image][i]) {
                printf("image %d, logit %d: %d instead of %d\n", image, i, logits[i], ${name}_logits[image][i]);
                wrong++;
            }
    }
    printf("%d test vectors, %d wrong logits\n", ${NAME}_VECTORS, wrong);
    return wrong > 0;
}
