// From a picture to the square of pixels that the network takes, byte for byte as in training and measuring.
//
// Two passes of resampling, across first, then down. Weights are integers with 22 binary digits after the point; each
// pass rounds to 8 bits. Edges of the resized box are rounded to float. Needs C++17 and nothing else. Made by edgekit.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

// A fused multiply-add would round once instead of twice.
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

namespace edgekit {

enum class Kernel { bilinear, bicubic };
enum class Geometry { centre_box, whole, bars };  // cut the centre out, squash the whole picture, fit it in with bars

struct Colour {
  uint8_t red, green, blue;
};

// How a picture becomes the square: the part of preprocess.json that pixels depend on.
struct Preprocess {
  int size;         // side of the square
  int resize_size;  // length of the shorter side before the crop
  Kernel kernel;
  Geometry geometry;
  Colour background;  // of bars, and below transparent parts
};

namespace detail {

constexpr int bits = 22;

struct Taps {  // of one axis: output `o` sums the pixels from first[o] on, with count[o] weights
  std::vector<int> first, count;
  std::vector<int32_t> weights;  // `stride` for each output
  int stride;
};

struct Box {
  double left, top, right, bottom;
};

inline double weight(Kernel kernel, double x) {
  x = std::fabs(x);
  if (kernel == Kernel::bilinear) return x < 1.0 ? 1.0 - x : 0.0;
  if (x < 1.0) return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * -0.5;
  return 0.0;
}

// `length`: number of pixels; `from`, `to`: edges of the part that is resized to `outputs` pixels.
inline Taps taps(int length, float from, float to, int outputs, Kernel kernel) {
  const double scale = static_cast<double>(to - from) / outputs, wide = std::max(scale, 1.0);
  const double support = (kernel == Kernel::bilinear ? 1.0 : 2.0) * wide;
  Taps found;
  found.stride = static_cast<int>(std::ceil(support)) * 2 + 1;
  found.first.resize(outputs);
  found.count.resize(outputs);
  found.weights.assign(static_cast<size_t>(outputs) * found.stride, 0);
  std::vector<double> shares(found.stride);
  for (int output = 0; output < outputs; ++output) {
    const double center = from + (output + 0.5) * scale;
    const int low = std::max(static_cast<int>(center - support + 0.5), 0);
    const int count = std::min(static_cast<int>(center + support + 0.5), length) - low;
    double total = 0.0;
    for (int i = 0; i < count; ++i) total += shares[i] = weight(kernel, (i + low - center + 0.5) * (1.0 / wide));
    for (int i = 0; i < count; ++i) {
      const double scaled = (total != 0.0 ? shares[i] / total : shares[i]) * (1 << bits);
      found.weights[static_cast<size_t>(output) * found.stride + i] =
          static_cast<int32_t>(shares[i] < 0 ? scaled - 0.5 : scaled + 0.5);
    }
    found.first[output] = low;
    found.count[output] = count;
  }
  return found;
}

inline uint8_t rounded(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> bits, 0, 255)); }

// Sums of one row of pixels, RGB, 3 bytes an output.
inline void across(const uint8_t* line, int channels, const Taps& taps, uint8_t* to) {
  const int outputs = static_cast<int>(taps.first.size());
  for (int output = 0; output < outputs; ++output) {
    int32_t red = 1 << (bits - 1), green = red, blue = red;
    const uint8_t* pixel = line + static_cast<size_t>(taps.first[output]) * channels;
    const int32_t* weights = &taps.weights[static_cast<size_t>(output) * taps.stride];
    for (int i = 0; i < taps.count[output]; ++i, pixel += channels) {
      red += pixel[0] * weights[i];
      green += pixel[1] * weights[i];
      blue += pixel[2] * weights[i];
    }
    *to++ = rounded(red);
    *to++ = rounded(green);
    *to++ = rounded(blue);
  }
}

// Returns width * height * 3 bytes.
template <class Row>
std::vector<uint8_t> resized(int from_width, int from_height, int channels, Row row, int width, int height, Box box,
                             Kernel kernel) {
  const Taps h = taps(from_width, float(box.left), float(box.right), width, kernel);
  const Taps v = taps(from_height, float(box.top), float(box.bottom), height, kernel);
  const int first = v.first.front(), rows = v.first.back() + v.count.back() - first;
  const size_t span = static_cast<size_t>(width) * 3;
  std::vector<uint8_t> middle(rows * span), result(height * span);
  for (int y = 0; y < rows; ++y) across(row(y + first), channels, h, &middle[y * span]);
  std::vector<int32_t> sums(span);
  for (int output = 0; output < height; ++output) {
    std::fill(sums.begin(), sums.end(), 1 << (bits - 1));
    for (int i = 0; i < v.count[output]; ++i) {
      const uint8_t* line = &middle[(v.first[output] - first + i) * span];
      const int32_t share = v.weights[static_cast<size_t>(output) * v.stride + i];
      for (size_t x = 0; x < span; ++x) sums[x] += line[x] * share;
    }
    for (size_t x = 0; x < span; ++x) result[output * span + x] = rounded(sums[x]);
  }
  return result;
}

}  // namespace detail

// Returns the square: RGB, size * size * 3 bytes, row by row.
//
// `row(y)` returns a pointer to a row of the picture, which is upright: `width` pixels of `channels` bytes, the first
// three of each are R, G and B. Rows are asked for one after the other, so that a picture needs no second copy.
template <class Row>
std::vector<uint8_t> fit(int width, int height, int channels, Row row, const Preprocess& how) {
  if (width < 1 || height < 1 || channels < 3)
    throw std::invalid_argument("a picture needs pixels of at least 3 bytes, not " + std::to_string(width) + "x" +
                                std::to_string(height) + " of " + std::to_string(channels));
  const int size = how.size;
  const detail::Box whole{0, 0, double(width), double(height)};
  if (how.geometry == Geometry::whole) return detail::resized(width, height, channels, row, size, size, whole, how.kernel);
  if (how.geometry == Geometry::bars) {
    const int64_t longest = std::max(width, height);
    const int inside_w = std::max<int>(1, int((2LL * width * size + longest) / (2 * longest)));
    const int inside_h = std::max<int>(1, int((2LL * height * size + longest) / (2 * longest)));
    const auto inside = detail::resized(width, height, channels, row, inside_w, inside_h, whole, how.kernel);
    std::vector<uint8_t> square;
    square.reserve(static_cast<size_t>(size) * size * 3);
    for (int i = 0; i < size * size; ++i) {
      square.push_back(how.background.red);
      square.push_back(how.background.green);
      square.push_back(how.background.blue);
    }
    const int left = (size - inside_w) / 2, top = (size - inside_h) / 2;
    for (int y = 0; y < inside_h; ++y)
      std::copy_n(&inside[static_cast<size_t>(y) * inside_w * 3], inside_w * 3,
                  &square[(static_cast<size_t>(top + y) * size + left) * 3]);
    return square;
  }
  const double scale = static_cast<double>(how.resize_size) / std::min(width, height);
  const double half_w = std::min(size / scale, double(width)) / 2, half_h = std::min(size / scale, double(height)) / 2;
  const detail::Box box{width / 2.0 - half_w, height / 2.0 - half_h, width / 2.0 + half_w, height / 2.0 + half_h};
  return detail::resized(width, height, channels, row, size, size, box, how.kernel);
}

}  // namespace edgekit
