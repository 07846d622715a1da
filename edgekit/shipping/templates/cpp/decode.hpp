// Decode files: PPM always, PNG with libpng (EDGEKIT_PNG), JPEG with libjpeg (EDGEKIT_JPEG). Upright RGB, transparent
// parts over the background. An app that has pixels already does not need it. Made by edgekit.
#pragma once

#include <array>
#include <cctype>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#ifdef EDGEKIT_PNG
#include <png.h>
#endif
#ifdef EDGEKIT_JPEG
#include <csetjmp>

#include <jpeglib.h>
#endif

#include "fit.hpp"

namespace edgekit {

struct Picture {
  int width, height;
  std::vector<uint8_t> rgb;  // row by row, 3 bytes a pixel
};

// Returns a picture turned and mirrored as its EXIF orientation (1 to 8) says.
inline Picture upright(const Picture& stored, int orientation) {
  if (orientation < 2 || orientation > 8) return stored;
  const bool swaps = orientation >= 5;
  Picture made{swaps ? stored.height : stored.width, swaps ? stored.width : stored.height, {}};
  made.rgb.resize(stored.rgb.size());
  const int w = stored.width, h = stored.height;
  for (int y = 0; y < made.height; ++y)
    for (int x = 0; x < made.width; ++x) {
      const std::array<std::array<int, 2>, 9> from{{{x, y}, {x, y}, {w - 1 - x, y}, {w - 1 - x, h - 1 - y}, {x, h - 1 - y},
                                                    {y, x}, {y, h - 1 - x}, {w - 1 - y, h - 1 - x}, {w - 1 - y, x}}};
      const auto [column, line] = from[orientation];
      std::copy_n(&stored.rgb[(size_t(line) * w + column) * 3], 3, &made.rgb[(size_t(y) * made.width + x) * 3]);
    }
  return made;
}

// Returns one channel of a transparent pixel over an opaque background, in the integers that training used.
inline uint8_t over(uint8_t value, uint8_t alpha, uint8_t below) {
  if (alpha == 0) return below;
  const uint32_t share = alpha * 255u * 255u * 128u / (255u * 255u), rest = 255u * 128u - share;
  const uint32_t sum = value * share + below * rest + (0x80u << 7);
  return uint8_t((((sum >> 8) + sum) >> 8) >> 7);
}

#ifdef EDGEKIT_PNG
inline Picture read_png(const std::string& path, Colour background) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  if (!png_image_begin_read_from_file(&image, path.c_str())) throw std::runtime_error(path + ": " + image.message);
  image.format = PNG_FORMAT_RGBA;
  std::vector<uint8_t> rgba(PNG_IMAGE_SIZE(image));
  if (!png_image_finish_read(&image, nullptr, rgba.data(), 0, nullptr)) throw std::runtime_error(path + ": " + image.message);
  Picture made{int(image.width), int(image.height), {}};
  made.rgb.reserve(rgba.size() / 4 * 3);
  for (size_t i = 0; i < rgba.size(); i += 4) {
    made.rgb.push_back(over(rgba[i], rgba[i + 3], background.red));
    made.rgb.push_back(over(rgba[i + 1], rgba[i + 3], background.green));
    made.rgb.push_back(over(rgba[i + 2], rgba[i + 3], background.blue));
  }
  return made;
}
#endif

#ifdef EDGEKIT_JPEG
// Returns the orientation in an EXIF segment; 1 where there is none.
inline int orientation_of(const uint8_t* bytes, size_t size) {
  if (size < 14 || std::memcmp(bytes, "Exif\0\0", 6) != 0) return 1;
  bytes += 6;
  size -= 6;
  const bool little = bytes[0] == 'I';
  const auto number = [&](uint64_t at, uint64_t count) -> uint32_t {
    uint32_t found = 0;
    for (uint64_t i = 0; at + count <= size && i < count; ++i)
      found |= uint32_t(bytes[at + i]) << 8 * (little ? i : count - 1 - i);
    return found;
  };
  const uint64_t start = number(4, 4), entries = number(start, 2);
  for (uint64_t i = 0; i < entries; ++i)
    if (const uint64_t at = start + 2 + 12 * i; at + 12 <= size && number(at, 2) == 0x0112) return int(number(at + 8, 2));
  return 1;
}

struct JpegError {
  jpeg_error_mgr manager;
  std::jmp_buf back;
};

inline Picture read_jpeg(const std::string& path) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) throw std::runtime_error(path + " cannot be read");
  const auto stored = std::make_unique<Picture>();  // what changes after setjmp lies outside of this function's frame
  const auto orientation = std::make_unique<int>(1);
  jpeg_decompress_struct info{};
  JpegError error{};
  info.err = jpeg_std_error(&error.manager);
  error.manager.error_exit = [](j_common_ptr common) { std::longjmp(reinterpret_cast<JpegError*>(common->err)->back, 1); };
  error.manager.output_message = [](j_common_ptr) {};
  if (setjmp(error.back)) {
    jpeg_destroy_decompress(&info);
    throw std::runtime_error(path + " is no JPEG file that can be decoded");
  }
  jpeg_create_decompress(&info);
  jpeg_stdio_src(&info, file.get());
  jpeg_save_markers(&info, JPEG_APP0 + 1, 0xffff);
  jpeg_read_header(&info, TRUE);
  for (auto marker = info.marker_list; marker && *orientation == 1; marker = marker->next)
    *orientation = orientation_of(marker->data, marker->data_length);
  info.out_color_space = JCS_RGB;
  jpeg_start_decompress(&info);
  stored->width = int(info.output_width);
  stored->height = int(info.output_height);
  stored->rgb.resize(size_t(stored->width) * stored->height * 3);
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = &stored->rgb[size_t(info.output_scanline) * stored->width * 3];
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_finish_decompress(&info);
  jpeg_destroy_decompress(&info);
  return upright(*stored, *orientation);
}
#endif

// Reads a binary PPM file of 8 bits (P6), which every tool can write.
inline Picture read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  Picture made{};
  int most = 0;
  if (!(file >> magic >> made.width >> made.height >> most) || magic != "P6" || most != 255 || made.width < 1 ||
      made.height < 1 || made.width > 65535 || made.height > 65535)
    throw std::runtime_error(path + " is no PPM file of 8 bits (P6)");
  file.get();
  made.rgb.resize(size_t(made.width) * made.height * 3);
  if (!file.read(reinterpret_cast<char*>(made.rgb.data()), std::streamsize(made.rgb.size())))
    throw std::runtime_error(path + " is cut short");
  return made;
}

// Decodes a file by its first bytes. Throws std::runtime_error: it cannot be read, or its decoder was not built in.
inline Picture decode(const std::string& path, Colour background) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " cannot be read");
  const int first = file.get();
  if (first == 'P') return read_ppm(path);
#ifdef EDGEKIT_PNG
  if (first == 0x89) return read_png(path, background);
#endif
#ifdef EDGEKIT_JPEG
  if (first == 0xff) return read_jpeg(path);
#endif
  (void)background;
  throw std::runtime_error(path + ": this program decodes PPM"
#ifdef EDGEKIT_PNG
                                  ", PNG"
#endif
#ifdef EDGEKIT_JPEG
                                  ", JPEG"
#endif
                                  " files"
#if !defined(EDGEKIT_PNG) || !defined(EDGEKIT_JPEG)
                                  "; build it with libpng and libjpeg for the others"
#endif
  );
}

}  // namespace edgekit
