// Resizes a picture to the square that the network takes, byte for byte as the model was trained and measured.
//
//     auto square = edgekit::fit(pixels, length, width, height, rule);                     // RGB, one after another
//     auto square = edgekit::fit(mat.cols, mat.rows, edgekit::Format::bgr,                 // rows of any memory
//                                [&](int y) { return mat.ptr(y); }, rule);
//
// C++17, no dependency; it may be copied alone. Rows are read where they lie: no second copy of the picture is made.
// Arithmetic: weights are double and become whole numbers with 22 binary digits after the point; across first, then
// down; each pass rounds to 8 bits. Made by edgekit.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace edgekit {

enum class Geometry { centre_box, whole, bars };
enum class Kernel { bilinear, bicubic };
enum class Format { rgb, rgba, bgr, bgra };  // of a pixel, one byte each; alpha is not read

// How a picture becomes a square, as preprocess.json says.
struct Rule {
  int image_size = 0;   // side of the square
  int resize_size = 0;  // length of the shorter side before the crop, for centre_box
  Geometry geometry = Geometry::centre_box;
  Kernel kernel = Kernel::bilinear;
  std::array<std::uint8_t, 3> background{255, 255, 255};  // of the bars, RGB
};

namespace detail {

// A fused multiply-add rounds once where the model's own code rounds twice.
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#elif defined(_MSC_VER)
#pragma fp_contract(off)
#endif

constexpr int weight_bits = 22;

// Edges of the part of a picture that is resized.
struct Box {
  float left, top, right, bottom;
};

inline Box centre_box(int width, int height, const Rule& rule) {
  const double scale = static_cast<double>(rule.resize_size) / std::min(width, height);
  const double half_w = std::min(rule.image_size / scale, static_cast<double>(width)) / 2;
  const double half_h = std::min(rule.image_size / scale, static_cast<double>(height)) / 2;
  return {static_cast<float>(width / 2.0 - half_w), static_cast<float>(height / 2.0 - half_h),
          static_cast<float>(width / 2.0 + half_w), static_cast<float>(height / 2.0 + half_h)};
}

// Returns the kernel's weight at a distance.
inline double weight(Kernel kernel, double x) {
  x = std::fabs(x);
  if (kernel == Kernel::bilinear) return x < 1.0 ? 1.0 - x : 0.0;
  if (x < 1.0) return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1;
  return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0.0;
}

// Which pixels each output sums, and their weights: from first[i] on, count[i] pixels, weights[i * most] and following.
struct Taps {
  int most = 0;
  std::vector<int> first, count;
  std::vector<std::int32_t> weights;
};

// Returns the taps of `outputs` pixels made of the part from `start` to `stop` of `length` pixels.
inline Taps taps(int length, float start, float stop, int outputs, Kernel kernel) {
  const float part = stop - start;
  const double scale = static_cast<double>(part) / outputs;
  const double wide = std::max(scale, 1.0);
  const double support = (kernel == Kernel::bilinear ? 1.0 : 2.0) * wide;
  const double inverse = 1.0 / wide;
  Taps found;
  found.most = static_cast<int>(std::ceil(support)) * 2 + 1;
  found.weights.assign(static_cast<std::size_t>(outputs) * found.most, 0);
  std::vector<double> shares(found.most);
  for (int output = 0; output < outputs; ++output) {
    const double centre = start + (output + 0.5) * scale;
    const int low = std::max(static_cast<int>(centre - support + 0.5), 0);
    const int count = std::min(static_cast<int>(centre + support + 0.5), length) - low;
    double total = 0.0;
    for (int i = 0; i < count; ++i) total += shares[i] = weight(kernel, (i + low - centre + 0.5) * inverse);
    for (int i = 0; i < count; ++i) {
      const double share = (total != 0.0 ? shares[i] / total : shares[i]) * (1 << weight_bits);
      found.weights[static_cast<std::size_t>(output) * found.most + i] =
          static_cast<std::int32_t>(share < 0 ? share - 0.5 : share + 0.5);
    }
    found.first.push_back(low);
    found.count.push_back(count);
  }
  return found;
}

#if defined(__clang__)
#pragma STDC FP_CONTRACT DEFAULT
#elif defined(__GNUC__)
#pragma GCC pop_options
#elif defined(_MSC_VER)
#pragma fp_contract(on)
#endif

constexpr std::int32_t half = 1 << (weight_bits - 1);

inline std::uint8_t level(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> weight_bits, 0, 255));
}

// Sums pixels of one row for each output: RGB.
inline void across(const std::uint8_t* row, Format format, const Taps& taps, std::uint8_t* out) {
  const int step = format == Format::rgb || format == Format::bgr ? 3 : 4;
  const int red = format == Format::rgb || format == Format::rgba ? 0 : 2;
  for (std::size_t output = 0; output < taps.first.size(); ++output) {
    const std::uint8_t* pixel = row + static_cast<std::size_t>(taps.first[output]) * step;
    const std::int32_t* share = &taps.weights[output * taps.most];
    std::int32_t r = half, g = half, b = half;
    for (int i = 0; i < taps.count[output]; ++i, pixel += step) {
      r += pixel[red] * share[i];
      g += pixel[1] * share[i];
      b += pixel[2 - red] * share[i];
    }
    *out++ = level(r);
    *out++ = level(g);
    *out++ = level(b);
  }
}

// Sums rows of `length` bytes for each output; `first` is the number of the first row in `rows`.
inline void down(const std::vector<std::uint8_t>& rows, int first, std::size_t length, const Taps& taps,
                 std::vector<std::uint8_t>& out) {
  std::vector<std::int32_t> sums(length);
  for (std::size_t output = 0; output < taps.first.size(); ++output) {
    std::fill(sums.begin(), sums.end(), half);
    for (int i = 0; i < taps.count[output]; ++i) {
      const std::uint8_t* row = &rows[(taps.first[output] + i - first) * length];
      const std::int32_t share = taps.weights[output * taps.most + i];
      for (std::size_t x = 0; x < length; ++x) sums[x] += row[x] * share;
    }
    for (std::size_t x = 0; x < length; ++x) out[output * length + x] = level(sums[x]);
  }
}

// Resizes the part `box` of a picture: RGB, out_width * out_height * 3 bytes.
template <class Row>
std::vector<std::uint8_t> resized(int width, int height, Format format, Row& row, const Box& box, int out_width,
                                  int out_height, Kernel kernel) {
  const Taps horizontal = taps(width, box.left, box.right, out_width, kernel);
  const Taps vertical = taps(height, box.top, box.bottom, out_height, kernel);
  const int first = vertical.first.front(), stop = vertical.first.back() + vertical.count.back();
  const std::size_t length = static_cast<std::size_t>(out_width) * 3;
  std::vector<std::uint8_t> rows((stop - first) * length), out(out_height * length);
  for (int y = first; y < stop; ++y) across(row(y), format, horizontal, &rows[(y - first) * length]);
  down(rows, first, length, vertical, out);
  return out;
}

}  // namespace detail

// Returns the square of a picture: RGB, row by row, image_size * image_size * 3 bytes.
//
// row: a function from y (0 to height - 1, ascending) to the first byte of that row. Throws std::invalid_argument.
template <class Row>
std::vector<std::uint8_t> fit(int width, int height, Format format, Row row, const Rule& rule) {
  if (width < 1 || height < 1) {
    throw std::invalid_argument("a picture of " + std::to_string(width) + " x " + std::to_string(height) +
                                " has no pixels");
  }
  const int size = rule.image_size;
  const detail::Box all{0, 0, static_cast<float>(width), static_cast<float>(height)};
  if (rule.geometry == Geometry::centre_box) {
    const detail::Box box = detail::centre_box(width, height, rule);
    return detail::resized(width, height, format, row, box, size, size, rule.kernel);
  }
  if (rule.geometry == Geometry::whole) {
    return detail::resized(width, height, format, row, all, size, size, rule.kernel);
  }
  const std::int64_t longest = std::max(width, height);
  const auto side = [&](std::int64_t length) {
    return std::max(1, static_cast<int>((2 * length * size + longest) / (2 * longest)));
  };
  const int inside_w = side(width), inside_h = side(height);
  const int left = (size - inside_w) / 2, top = (size - inside_h) / 2;
  const auto inside = detail::resized(width, height, format, row, all, inside_w, inside_h, rule.kernel);
  std::vector<std::uint8_t> square;
  square.reserve(static_cast<std::size_t>(size) * size * 3);
  for (int i = 0; i < size * size; ++i) square.insert(square.end(), rule.background.begin(), rule.background.end());
  for (int y = 0; y < inside_h; ++y) {
    const auto from = inside.begin() + static_cast<std::ptrdiff_t>(y) * inside_w * 3;
    std::copy(from, from + inside_w * 3, square.begin() + (static_cast<std::ptrdiff_t>(top + y) * size + left) * 3);
  }
  return square;
}

// The same of pixels that lie one after another, without gaps between rows. length: of all of them, bytes.
inline std::vector<std::uint8_t> fit(const std::uint8_t* pixels, std::size_t length, int width, int height,
                                     const Rule& rule, Format format = Format::rgb) {
  const std::size_t step = format == Format::rgb || format == Format::bgr ? 3 : 4;
  const std::size_t line = step * static_cast<std::size_t>(std::max(width, 0));
  const std::size_t wanted = line * static_cast<std::size_t>(std::max(height, 0));
  if (pixels == nullptr || length != wanted) {
    throw std::invalid_argument("a picture of " + std::to_string(width) + " x " + std::to_string(height) + " has " +
                                std::to_string(wanted) + " bytes, not " + std::to_string(pixels ? length : 0));
  }
  return fit(width, height, format, [&](int y) { return pixels + line * static_cast<std::size_t>(y); }, rule);
}

}  // namespace edgekit
