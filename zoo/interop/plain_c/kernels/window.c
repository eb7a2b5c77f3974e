/* Pooling: windows of each map. rows and columns are those of the output. */
typedef struct {
    int32_t channels, height, width, rows, columns;
    int32_t kernel_height, kernel_width, stride_y, stride_x, pad_y, pad_x;
    int32_t zero, count_padding;
} pooling;

/* From `from` to before `to` is the part of a window that lies on the map; `count` pixels with the padding. */
typedef struct {
    int32_t from, to, count;
} span;

static span part_inside(int32_t start, int32_t kernel, int32_t size, int32_t pad)
{
    span part;
    part.from = start < 0 ? 0 : start;
    part.to = start + kernel < size ? start + kernel : size;
    part.count = (start + kernel < size + pad ? start + kernel : size + pad) - start;
    return part;
}
