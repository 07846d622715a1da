// Resize the pictures of a file with a kit's fit.hpp, for comparison with the reference: fits CASES OUT.
//
// A case in CASES: seven little-endian int32 (size, resize_size, kernel, geometry, background 0xrrggbb, width, height),
// then width * height * 3 bytes. OUT gets the squares, one after the other.
#include <cstdio>
#include <fstream>
#include <iterator>

#include "fit.hpp"

int main(int, char** arguments) {
  std::ifstream in(arguments[1], std::ios::binary);
  std::ofstream out(arguments[2], std::ios::binary);
  int32_t head[7];
  while (in.read(reinterpret_cast<char*>(head), sizeof head)) {
    const auto colour = static_cast<uint32_t>(head[4]);
    const edgekit::Preprocess how{head[0], head[1], static_cast<edgekit::Kernel>(head[2]),
                                  static_cast<edgekit::Geometry>(head[3]),
                                  {uint8_t(colour >> 16), uint8_t(colour >> 8), uint8_t(colour)}};
    std::vector<uint8_t> pixels(size_t(head[5]) * head[6] * 3);
    in.read(reinterpret_cast<char*>(pixels.data()), std::streamsize(pixels.size()));
    const auto row = [&](int y) { return &pixels[size_t(y) * head[5] * 3]; };
    const auto square = edgekit::fit(head[5], head[6], 3, row, how);
    out.write(reinterpret_cast<const char*>(square.data()), std::streamsize(square.size()));
  }
}
