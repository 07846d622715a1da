// Decodes picture files as the model's training did: upright, RGB with 8 bits, over the background.
//
// PPM always; PNG with libpng (EDGEKIT_PNG), JPEG with libjpeg (EDGEKIT_JPEG). Whoever has pixels does not need it.
#pragma once

#include <algorithm>
#include <array>
#include <cctype>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "files.hpp"
#ifdef EDGEKIT_PNG
#include <png.h>
#endif
#ifdef EDGEKIT_JPEG
#include <jpeglib.h>
#include <jerror.h>
#endif

namespace edgekit {

// A picture as it was stored, and how it is turned: 1 to 8, as EXIF says.
struct Picture {
  int stored_width = 0, stored_height = 0, orientation = 1;
  std::vector<std::uint8_t> pixels;  // RGB, row by row

  int width() const { return orientation < 5 ? stored_width : stored_height; }
  int height() const { return orientation < 5 ? stored_height : stored_width; }

  // Returns a row of the upright picture: RGB. It is overwritten by the next call.
  const std::uint8_t* row(int y) {
    if (orientation == 1) return at(0, y);
    line_.resize(static_cast<std::size_t>(width()) * 3);
    const bool is_across = orientation >= 5;  // rows are columns of the stored picture
    const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const bool from_below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    for (int x = 0; x < width(); ++x) {
      const int column = is_across ? y : x, line = is_across ? x : y;
      const std::uint8_t* pixel = at(from_right ? stored_width - 1 - column : column,
                                     from_below ? stored_height - 1 - line : line);
      std::copy(pixel, pixel + 3, &line_[static_cast<std::size_t>(x) * 3]);
    }
    return line_.data();
  }

 private:
  const std::uint8_t* at(int x, int y) const {
    return &pixels[(static_cast<std::size_t>(y) * stored_width + x) * 3];
  }
  std::vector<std::uint8_t> line_;
};

namespace detail {

constexpr std::int64_t most_pixels = 320'000'000;

inline void check_size(const std::string& path, std::int64_t width, std::int64_t height) {
  if (width < 1 || height < 1 || width * height > most_pixels) {
    throw std::runtime_error(path + ": " + std::to_string(width) + " x " + std::to_string(height) + " pixels");
  }
}

// Reads a binary PPM with 8 bits.
inline Picture load_ppm(const std::string& path, const std::string& bytes) {
  std::size_t at = 2;
  const auto number = [&] {
    while (at < bytes.size() && (std::isspace(static_cast<unsigned char>(bytes[at])) || bytes[at] == '#')) {
      at = bytes[at] == '#' ? std::min(bytes.find('\n', at), bytes.size()) : at + 1;
    }
    std::int64_t found = 0;
    for (; at < bytes.size() && bytes[at] >= '0' && bytes[at] <= '9' && found <= most_pixels; ++at) {
      found = found * 10 + (bytes[at] - '0');
    }
    return found;
  };
  const std::int64_t width = number(), height = number(), most = number();
  check_size(path, width, height);
  const std::size_t length = static_cast<std::size_t>(width * height * 3);
  if (most != 255) throw std::runtime_error(path + ": values of other than 8 bits: convert them, and pass the pixels");
  if (bytes.size() < at + 1 + length) throw std::runtime_error(path + " is truncated");
  Picture made;
  made.stored_width = static_cast<int>(width), made.stored_height = static_cast<int>(height);
  made.pixels.assign(bytes.begin() + static_cast<std::ptrdiff_t>(at + 1),
                     bytes.begin() + static_cast<std::ptrdiff_t>(at + 1 + length));
  return made;
}

// Returns a level of a half transparent pixel over another one, rounded as Pillow does.
inline std::uint8_t over(int above, int alpha, int below) {
  const int sum = above * alpha + below * (255 - alpha) + 128;
  return static_cast<std::uint8_t>(((sum >> 8) + sum) >> 8);
}

#ifdef EDGEKIT_PNG
inline Picture load_png(const std::string& path, const std::string& bytes,
                        const std::array<std::uint8_t, 3>& background) {
  struct Source {  // libpng has its address, so that nothing of it is in a register when an error jumps back
    const std::string& bytes;
    std::size_t at = 0;
    std::string problem;
    std::vector<std::uint8_t> rgba;
    std::vector<png_bytep> rows;
  } source{bytes, 0, "", {}, {}};
  png_structp png = png_create_read_struct(
      PNG_LIBPNG_VER_STRING, &source,
      [](png_structp given, png_const_charp text) {
        static_cast<Source*>(png_get_error_ptr(given))->problem = text;
        png_longjmp(given, 1);
      },
      [](png_structp, png_const_charp) {});
  png_infop info = png ? png_create_info_struct(png) : nullptr;
  if (info == nullptr) throw std::runtime_error("libpng cannot be started");
  if (setjmp(png_jmpbuf(png)) != 0) {
    png_destroy_read_struct(&png, &info, nullptr);
    throw std::runtime_error(path + ": " + source.problem);
  }
  png_set_read_fn(png, &source, [](png_structp given, png_bytep to, png_size_t length) {
    Source& from = *static_cast<Source*>(png_get_io_ptr(given));
    if (from.bytes.size() - from.at < length) png_error(given, "it is truncated");
    std::copy_n(from.bytes.data() + from.at, length, to);
    from.at += length;
  });
  png_read_info(png, info);
  const std::int64_t width = png_get_image_width(png, info), height = png_get_image_height(png, info);
  if (width * height > most_pixels) png_error(png, "it has too many pixels");
  if (png_get_bit_depth(png, info) == 16) png_error(png, "values of 16 bits: convert them, and pass the pixels");
  png_set_expand(png);
  png_set_gray_to_rgb(png);
  png_set_add_alpha(png, 255, PNG_FILLER_AFTER);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  std::vector<std::uint8_t>& rgba = source.rgba;
  rgba.resize(static_cast<std::size_t>(width * height * 4));
  for (std::int64_t y = 0; y < height; ++y) source.rows.push_back(&rgba[static_cast<std::size_t>(y * width * 4)]);
  png_read_image(png, source.rows.data());
  png_destroy_read_struct(&png, &info, nullptr);
  Picture made;
  made.stored_width = static_cast<int>(width), made.stored_height = static_cast<int>(height);
  // In place: the pixels move together, from 4 bytes to 3.
  for (std::size_t i = 0; i < rgba.size() / 4; ++i) {
    const int alpha = rgba[4 * i + 3];
    for (std::size_t c = 0; c < 3; ++c) rgba[3 * i + c] = over(rgba[4 * i + c], alpha, background[c]);
  }
  rgba.resize(rgba.size() / 4 * 3);
  made.pixels = std::move(rgba);
  return made;
}
#endif

// Returns the orientation that the EXIF block of a JPEG says; 1 where it says none.
inline int orientation_of(const std::uint8_t* data, std::size_t length) {
  if (length < 14 || std::string(data, data + 4) != "Exif") return 1;
  const std::uint8_t* tiff = data + 6;
  length -= 6;
  const bool little = tiff[0] == 'I';
  const auto number = [&](std::size_t at, int bytes) {
    std::uint32_t found = 0;
    for (int i = 0; i < bytes && at + i < length; ++i) {
      found |= static_cast<std::uint32_t>(tiff[at + i]) << 8 * (little ? i : bytes - 1 - i);
    }
    return found;
  };
  const std::size_t start = number(4, 4);
  if (start > length) return 1;
  for (std::size_t i = 0; i < number(start, 2); ++i) {
    const std::size_t entry = start + 2 + 12 * i;
    if (number(entry, 2) != 0x112) continue;
    const std::uint32_t found = number(entry + 8, 2);
    return found >= 1 && found <= 8 ? static_cast<int>(found) : 1;
  }
  return 1;
}

#ifdef EDGEKIT_JPEG
inline Picture load_jpeg(const std::string& path, const std::string& bytes) {
  struct Errors : jpeg_error_mgr {  // libjpeg has its address, so that nothing of it is in a register at a jump
    std::jmp_buf back;
    char problem[JMSG_LENGTH_MAX];
    Picture made;
  } errors;
  jpeg_decompress_struct jpeg;
  Picture& made = errors.made;
  jpeg.err = jpeg_std_error(&errors);
  errors.error_exit = [](j_common_ptr given) {
    auto* own = static_cast<Errors*>(given->err);
    own->format_message(given, own->problem);
    std::longjmp(own->back, 1);
  };
  errors.emit_message = [](j_common_ptr given, int level) {  // libjpeg makes a truncated file grey, with a warning
    if (level < 0 && given->err->msg_code == JWRN_JPEG_EOF) given->err->error_exit(given);
  };
  jpeg_create_decompress(&jpeg);
  if (setjmp(errors.back) != 0) {
    jpeg_destroy_decompress(&jpeg);
    throw std::runtime_error(path + ": " + errors.problem);
  }
  jpeg_mem_src(&jpeg, reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<unsigned long>(bytes.size()));
  jpeg_save_markers(&jpeg, JPEG_APP0 + 1, 0xffff);
  jpeg_read_header(&jpeg, TRUE);
  const std::int64_t count = static_cast<std::int64_t>(jpeg.image_width) * jpeg.image_height;
  if (count > most_pixels) ERREXIT1(&jpeg, JERR_IMAGE_TOO_BIG, 0);
  for (auto marker = jpeg.marker_list; marker != nullptr; marker = marker->next) {
    if (made.orientation == 1) made.orientation = orientation_of(marker->data, marker->data_length);
  }
  jpeg.out_color_space = JCS_RGB;  // of CMYK, libjpeg says that it cannot
  jpeg_start_decompress(&jpeg);
  made.stored_width = static_cast<int>(jpeg.output_width), made.stored_height = static_cast<int>(jpeg.output_height);
  made.pixels.resize(static_cast<std::size_t>(jpeg.output_width) * jpeg.output_height * 3);
  while (jpeg.output_scanline < jpeg.output_height) {
    JSAMPROW row = &made.pixels[static_cast<std::size_t>(jpeg.output_scanline) * jpeg.output_width * 3];
    jpeg_read_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_decompress(&jpeg);
  jpeg_destroy_decompress(&jpeg);
  return std::move(made);
}
#endif

}  // namespace detail

// Returns which decoders are missing, and why; "" if none is.
inline std::string missing_decoders() {
  std::string missing;
#ifndef EDGEKIT_PNG
  missing = "libpng-dev";
#endif
#ifndef EDGEKIT_JPEG
  missing += missing.empty() ? "libjpeg-dev" : " and libjpeg-dev";
#endif
  return missing.empty() ? "" : "not installed when this program was built: " + missing;
}

// Decodes a PPM, PNG or JPEG file. Throws std::runtime_error.
inline Picture load(const std::string& path, [[maybe_unused]] const std::array<std::uint8_t, 3>& background) {
  const std::string bytes = read_bytes(path);
  if (bytes.compare(0, 2, "P6") == 0) return detail::load_ppm(path, bytes);
  const bool png = bytes.compare(0, 4, "\x89PNG") == 0, jpeg = bytes.compare(0, 2, "\xff\xd8") == 0;
#ifdef EDGEKIT_PNG
  if (png) return detail::load_png(path, bytes, background);
#endif
#ifdef EDGEKIT_JPEG
  if (jpeg) return detail::load_jpeg(path, bytes);
#endif
  throw std::runtime_error(path + ": " + (png || jpeg ? missing_decoders() : "not a PPM, PNG or JPEG file"));
}

}  // namespace edgekit
