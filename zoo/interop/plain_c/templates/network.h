/* $title
 *
 * An image is its pixels 0 to 255 as they are stored, uint8_t [channels][height][width]. Do not normalise it:
 * $normalisation
 * is what the network was trained with, and is inside.
 *
 * A logit is LOGIT_SCALE * (code - LOGIT_ZERO); the largest code is the likeliest class.
 *
 * Nothing is allocated. Memory: the arena, static, and less than 2 KB of stack. There is one arena, so only one
 * call may run at a time.
 *
 * Written by zoo. Do not edit.
 */
#ifndef ${NAME}_H
#define ${NAME}_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ${NAME}_CHANNELS $channels
#define ${NAME}_HEIGHT $height
#define ${NAME}_WIDTH $width
#define ${NAME}_IMAGE_BYTES $image_bytes
#define ${NAME}_CLASSES $classes
#define ${NAME}_ARENA_BYTES $arena_bytes
#define ${NAME}_WEIGHT_BYTES $weight_bytes
#define ${NAME}_LOGIT_SCALE $logit_scale
#define ${NAME}_LOGIT_ZERO $logit_zero

/* Names in UTF-8, in the order of the logits. */
extern const char *const ${name}_classes[${NAME}_CLASSES];

/* The codes of the logits of one image. */
void ${name}_run(const uint8_t image[${NAME}_IMAGE_BYTES], int16_t logits[${NAME}_CLASSES]);

/* Where in the arena an image may be put before it is run: then it needs no memory of its own. */
uint8_t *${name}_image(void);

#ifdef __cplusplus
}
#endif

#endif
