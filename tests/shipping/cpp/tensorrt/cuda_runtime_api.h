// A stand-in for a part of CUDA's runtime, written by hand: the GPU is the CPU.
// EDGEKIT_SM: its compute capability; 0: there is none.
#pragma once
#include <cstdlib>
#include <cstring>

enum cudaError_t { cudaSuccess = 0, cudaErrorUnknown = 999 };
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor = 75, cudaDevAttrComputeCapabilityMinor = 76 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
constexpr unsigned cudaStreamNonBlocking = 1;
using cudaStream_t = struct CUstream_st*;

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  const char* given = std::getenv("EDGEKIT_SM");
  const int number = given ? std::atoi(given) : 87;
  *value = which == cudaDevAttrComputeCapabilityMajor ? number / 10 : number % 10;
  return number ? cudaSuccess : cudaErrorUnknown;
}
inline const char* cudaGetErrorString(cudaError_t) { return "unknown"; }
inline cudaError_t cudaMalloc(void** address, std::size_t size) {
  *address = std::malloc(size);
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* address) {
  std::free(address);
  return cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = reinterpret_cast<cudaStream_t>(stream);
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind, cudaStream_t) {
  std::memcpy(to, from, size);
  return cudaSuccess;
}
