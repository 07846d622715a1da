// What the tests ask of the headers of a C++ kit.
//
//     program fit CASES       a line of CASES: width height seed size resize-size geometry kernel background; prints
//                             the CRC-32 of each square, and of the same picture in a camera's memory (BGRA, gaps)
//     program load PICTURES   width, height and CRC-32 of each, over grey; or what is wrong with it
//     program refuse          what is said about pixels that are none
#include <fstream>
#include <iostream>

#include "golden.hpp"

using namespace edgekit;
using Bytes = std::vector<std::uint8_t>;

Bytes noise(int width, int height, std::uint32_t state) {
  Bytes pixels(static_cast<std::size_t>(width) * height * 3);
  for (auto& pixel : pixels) pixel = static_cast<std::uint8_t>((state = 1664525u * state + 1013904223u) >> 24);
  return pixels;
}

Bytes fit_camera(const Bytes& pixels, int width, int height, const Rule& rule) {
  const std::size_t stride = static_cast<std::size_t>(width) * 4 + 12;
  Bytes memory(stride * height, 99);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const std::uint8_t* pixel = &pixels[(static_cast<std::size_t>(y) * width + x) * 3];
      for (int c = 0; c < 3; ++c) memory[y * stride + x * 4 + 2 - c] = pixel[c];
    }
  }
  return fit(width, height, Format::bgra, [&](int y) { return &memory[y * stride]; }, rule);
}

void fit_cases(const char* path) {
  std::ifstream lines(path);
  int width, height, geometry, kernel;
  std::uint32_t seed, background;
  Rule rule;
  while (lines >> width >> height >> seed >> rule.image_size >> rule.resize_size >> geometry >> kernel >> background) {
    rule.geometry = static_cast<Geometry>(geometry);
    rule.kernel = static_cast<Kernel>(kernel);
    for (int i = 0; i < 3; ++i) rule.background[i] = static_cast<std::uint8_t>(background >> (16 - 8 * i));
    const Bytes pixels = noise(width, height, seed);
    std::cout << golden::crc32(fit(pixels.data(), pixels.size(), width, height, rule)) << ' '
              << golden::crc32(fit_camera(pixels, width, height, rule)) << '\n';
  }
}

void load_all(char** paths) {
  for (; *paths != nullptr; ++paths) {
    try {
      Picture picture = load(*paths, {128, 128, 128});
      Bytes pixels;
      for (int y = 0; y < picture.height(); ++y) {
        const std::uint8_t* row = picture.row(y);
        pixels.insert(pixels.end(), row, row + picture.width() * 3);
      }
      std::cout << picture.width() << ' ' << picture.height() << ' ' << golden::crc32(pixels) << '\n';
    } catch (const std::exception& error) {
      std::cout << "error: " << error.what() << '\n';
    }
  }
}

void refuse() {
  const Rule rule{64, 73, Geometry::centre_box, Kernel::bilinear, {255, 255, 255}};
  const Bytes pixels(4 * 5 * 3);
  const auto say = [&](const std::uint8_t* at, std::size_t length, int width, int height) {
    try {
      fit(at, length, width, height, rule);
      std::cout << "taken\n";
    } catch (const std::invalid_argument& error) {
      std::cout << error.what() << '\n';
    }
  };
  say(pixels.data(), pixels.size(), 4, 5);
  say(pixels.data(), pixels.size() - 1, 4, 5);
  say(pixels.data(), 0, 0, 5);
  say(pixels.data(), pixels.size(), -4, -5);
  say(nullptr, pixels.size(), 4, 5);
}

int main(int, char** words) {
  const std::string what = words[1];
  if (what == "fit") fit_cases(words[2]);
  if (what == "load") load_all(words + 2);
  if (what == "refuse") refuse();
}
