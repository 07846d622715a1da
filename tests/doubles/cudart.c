/* A double of the CUDA runtime (libcudart) for where there is no GPU: device memory is host memory, streams are
 * synchronous, and a graph holds the one thing that double_record was given while it was captured.
 * Signatures and error numbers: NVIDIA, "CUDA Runtime API". */
#include <stdlib.h>
#include <string.h>
#include <time.h>

static long live = 0;
static int capturing = 0;
static void (*recorded)(void) = 0;

const char *cudaGetErrorString(int status) {
    return status == 801 ? "operation not supported" : status == 100 ? "no CUDA-capable device is detected" : "no error";
}
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    if (getenv("DOUBLE_CUDA_NONE")) return 100;
    const char *sm = getenv("DOUBLE_CUDA_SM");
    int number = sm ? atoi(sm) : 87;
    *value = attribute == 75 ? number / 10 : number % 10;
    return device == 0 ? 0 : 101;
}
int cudaMalloc(void **made, size_t size) { *made = malloc(size); live++; return 0; }
int cudaMallocHost(void **made, size_t size) { return cudaMalloc(made, size); }
int cudaFree(void *pointer) { free(pointer); live--; return 0; }
int cudaFreeHost(void *pointer) { return cudaFree(pointer); }
int cudaStreamCreateWithFlags(void **made, unsigned flags) { *made = (void *)(size_t)(flags + 1); return 0; }
int cudaStreamSynchronize(void *stream) { return stream ? 0 : 400; }
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
    if ((kind != 1 && kind != 2) || !stream) return 1;
    memcpy(to, from, size);
    return 0;
}
int cudaEventCreate(void **made) { *made = calloc(1, sizeof(struct timespec)); return 0; }
int cudaEventRecord(void *event, void *stream) {
    clock_gettime(CLOCK_MONOTONIC, (struct timespec *)event);
    return stream ? 0 : 400;
}
int cudaEventElapsedTime(float *ms, void *start, void *end) {
    struct timespec *a = start, *b = end;
    *ms = (float)((b->tv_sec - a->tv_sec) * 1e3 + (b->tv_nsec - a->tv_nsec) / 1e6);
    return 0;
}
int cudaStreamBeginCapture(void *stream, int mode) {
    if (getenv("DOUBLE_CUDA_NO_GRAPH")) return 801;
    capturing = 1;
    return mode == 1 && stream ? 0 : 1;
}
int cudaStreamEndCapture(void *stream, void **graph) {
    capturing = 0;
    *graph = (void *)7;
    return stream && recorded ? 0 : 400;
}
int cudaGraphInstantiate(void **made, void *graph, void *node, void *log, size_t size) {
    *made = graph;
    return node || log || size ? 1 : 0;
}
int cudaGraphDestroy(void *graph) { return graph == (void *)7 ? 0 : 400; }
int cudaGraphLaunch(void *graph, void *stream) {
    if (graph != (void *)7 || !stream) return 400;
    recorded();
    return 0;
}
int double_capturing(void) { return capturing; }
void double_record(void (*work)(void)) { recorded = work; }
long double_live(void) { return live; }
