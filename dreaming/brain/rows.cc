// Products of a weight with a few rows, at the speed of memory: y[b, o] = sum_i x[b, i] w[o, i].
//
// XLA's CPU backend packs a weight before it multiplies, which costs more than the product when there
// are eight rows. Here each row of the weight is read once, and all rows of x, which stay in the
// cache, are multiplied with it. kernels.py compiles this file and says when it is used.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

typedef float Floats __attribute__((vector_size(32), aligned(4)));
typedef int8_t Bytes __attribute__((vector_size(8), aligned(1)));

static inline Floats Load(const float* p) { return *reinterpret_cast<const Floats*>(p); }

static inline Floats Load(const int8_t* p) {
#ifdef __AVX2__  // what GCC 12 makes of the other line takes twice as long
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return reinterpret_cast<Floats>(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
#else
  return __builtin_convertvector(*reinterpret_cast<const Bytes*>(p), Floats);
#endif
}

// Rows begin to end of w, with B rows of x.
template <int B, typename T>
static void Some(const T* w, const float* scale, const float* x, float* y, int64_t out, int64_t in,
                 int64_t begin, int64_t end) {
  for (int64_t o = begin; o < end; ++o) {
    const T* row = w + o * in;
    Floats sums[B] = {};
    for (int64_t i = 0; i < in; i += 8) {
      const Floats value = Load(row + i);
#pragma GCC unroll 8
      for (int b = 0; b < B; ++b) sums[b] += value * Load(x + b * in + i);
    }
    const float factor = scale == nullptr ? 1.0f : scale[o];
    for (int b = 0; b < B; ++b) {
      float sum = 0;
      for (int k = 0; k < 8; ++k) sum += sums[b][k];
      y[b * out + o] = factor * sum;
    }
  }
}

template <typename T>
using Worker = void (*)(const T*, const float*, const float*, float*, int64_t, int64_t, int64_t,
                        int64_t);

template <typename T>
static Worker<T> Pick(int64_t rows) {
  switch (rows) {
    case 1: return Some<1, T>;
    case 2: return Some<2, T>;
    case 3: return Some<3, T>;
    case 4: return Some<4, T>;
    case 5: return Some<5, T>;
    case 6: return Some<6, T>;
    case 7: return Some<7, T>;
    case 8: return Some<8, T>;
  }
  return nullptr;
}

struct Shared {
  std::atomic<int64_t> next{0};  // block that nobody has taken
  std::atomic<int64_t> done{0};
};

// Splits w's rows into blocks that the threads of the pool take. The caller works, too, and waits for
// blocks alone that others have begun: a pool that is busy elsewhere holds nobody up.
template <typename T>
static ffi::Error Product(ffi::ThreadPool& pool, const T* w, const float* scale, const float* x,
                          float* y, int64_t rows, int64_t out, int64_t in) {
  if (in % 8 != 0) return ffi::Error::InvalidArgument("rows are multiples of 8 long");
  const int64_t block = std::max<int64_t>(16, 131072 / (in * sizeof(T)));
  const int64_t blocks = (out + block - 1) / block;
  auto shared = std::make_shared<Shared>();
  auto work = [=] {
    for (int64_t i; (i = shared->next.fetch_add(1)) < blocks;) {
      const int64_t begin = i * block, end = std::min(out, begin + block);
      for (int64_t b = 0; b < rows; b += 8) {
        const int64_t some = std::min<int64_t>(8, rows - b);
        Pick<T>(some)(w, scale, x + b * in, y + b * out, out, in, begin, end);
      }
      shared->done.fetch_add(1, std::memory_order_release);
    }
  };
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), blocks) - 1;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule(std::function<void()>(work));
  work();
  while (shared->done.load(std::memory_order_acquire) < blocks) std::this_thread::yield();
  return ffi::Error::Success();
}

static ffi::Error Weight(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> w, ffi::Buffer<ffi::F32> x,
                         ffi::ResultBuffer<ffi::F32> y) {
  const auto shape = w.dimensions();
  return Product<float>(pool, w.typed_data(), nullptr, x.typed_data(), y->typed_data(),
                        x.dimensions()[0], shape[0], shape[1]);
}

static ffi::Error Quantized(ffi::ThreadPool pool, ffi::Buffer<ffi::S8> w,
                            ffi::Buffer<ffi::F32> scale, ffi::Buffer<ffi::F32> x,
                            ffi::ResultBuffer<ffi::F32> y) {
  const auto shape = w.dimensions();
  return Product<int8_t>(pool, w.typed_data(), scale.typed_data(), x.typed_data(), y->typed_data(),
                         x.dimensions()[0], shape[0], shape[1]);
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(DreamingWeight, Weight,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(DreamingQuantized, Quantized,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::S8>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());
