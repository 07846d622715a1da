// Reads the files of the kit: bytes, SHA-256, numbers, JSON.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <locale>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace edgekit {

// Returns the bytes of a file. Throws std::runtime_error if it cannot be read.
inline std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.is_open() || file.bad()) throw std::runtime_error(path + " cannot be read");
  return bytes;
}

// Returns a number that is written with a point, whatever the locale of the program.
inline double to_number(const std::string& text) {
  std::istringstream stream(text);
  stream.imbue(std::locale::classic());
  double value = 0;
  if (!(stream >> value)) throw std::runtime_error("\"" + text + "\" is no number");
  return value;
}

// Returns the SHA-256 of bytes, 64 hexadecimal digits (FIPS 180-4).
inline std::string sha256(std::string bytes) {
  // Fractional parts of the cube roots of the first 64 primes, 32 bits of each.
  static constexpr std::uint32_t constants[64] = {
      0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
      0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
      0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
      0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
      0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
      0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
      0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
      0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
  std::array<std::uint32_t, 8> state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  const auto turn = [](std::uint32_t x, int n) { return (x >> n) | (x << (32 - n)); };
  const std::uint64_t bits = static_cast<std::uint64_t>(bytes.size()) * 8;
  bytes += static_cast<char>(0x80);
  while (bytes.size() % 64 != 56) bytes += '\0';
  for (int shift = 56; shift >= 0; shift -= 8) bytes += static_cast<char>(bits >> shift);
  for (std::size_t block = 0; block < bytes.size(); block += 64) {
    std::uint32_t words[64] = {};
    for (std::size_t i = 0; i < 64; ++i) {
      words[i / 4] = words[i / 4] << 8 | static_cast<std::uint8_t>(bytes[block + i]);
    }
    for (int i = 16; i < 64; ++i) {
      const std::uint32_t x = words[i - 15], y = words[i - 2];
      words[i] = words[i - 16] + (turn(x, 7) ^ turn(x, 18) ^ x >> 3);
      words[i] += words[i - 7] + (turn(y, 17) ^ turn(y, 19) ^ y >> 10);
    }
    auto [a, b, c, d, e, f, g, h] = state;
    for (int i = 0; i < 64; ++i) {
      const std::uint32_t one =
          h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + constants[i] + words[i];
      const std::uint32_t other = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + one, d = c, c = b, b = a, a = one + other;
    }
    const std::uint32_t added[8] = {a, b, c, d, e, f, g, h};
    for (int i = 0; i < 8; ++i) state[i] += added[i];
  }
  std::string digits;
  for (const std::uint32_t word : state) {
    char text[9];
    std::snprintf(text, sizeof text, "%08x", static_cast<unsigned>(word));
    digits += text;
  }
  return digits;
}

// A value of a JSON document. What is not there, or of another type, throws std::runtime_error.
class Json {
 public:
  // Reads a document.
  static Json parse(const std::string& text) {
    std::size_t at = 0;
    Json found = value(text, at);
    skip(text, at);
    if (at != text.size()) throw std::runtime_error("JSON: more after the end");
    return found;
  }

  // Returns an entry of an object.
  const Json& operator[](const std::string& name) const {
    const auto found = entries_.find(name);
    if (found == entries_.end()) throw std::runtime_error("JSON: there is no \"" + name + "\"");
    return found->second;
  }

  bool is_null() const { return type_ == Type::null; }
  const std::string& text() const { return as(Type::text, "a text").text_; }
  double number() const { return to_number(as(Type::number, "a number").text_); }
  const std::vector<Json>& items() const { return as(Type::array, "an array").items_; }

 private:
  enum class Type { null, boolean, number, text, array, object };

  const Json& as(Type type, const char* words) const {
    if (type_ != type) throw std::runtime_error(std::string("JSON: a value is not ") + words);
    return *this;
  }

  static void skip(const std::string& text, std::size_t& at) {
    at = std::min(text.find_first_not_of(" \t\r\n", at), text.size());
  }

  // Moves past a character if it comes next.
  static bool take(const std::string& text, std::size_t& at, char wanted) {
    skip(text, at);
    if (at >= text.size() || text[at] != wanted) return false;
    ++at;
    return true;
  }

  static void need(bool found) {
    if (!found) throw std::runtime_error("JSON: it is damaged");
  }

  static Json value(const std::string& text, std::size_t& at) {
    Json made;
    if (take(text, at, '{')) {
      made.type_ = Type::object;
      for (bool more = !take(text, at, '}'); more;) {
        need(take(text, at, '"'));
        const std::string name = rest_of_text(text, at);
        need(take(text, at, ':'));
        made.entries_.emplace(name, value(text, at));
        more = take(text, at, ',');
        need(more || take(text, at, '}'));
      }
    } else if (take(text, at, '[')) {
      made.type_ = Type::array;
      for (bool more = !take(text, at, ']'); more;) {
        made.items_.push_back(value(text, at));
        more = take(text, at, ',');
        need(more || take(text, at, ']'));
      }
    } else if (take(text, at, '"')) {
      made.type_ = Type::text;
      made.text_ = rest_of_text(text, at);
    } else {
      const std::size_t stop = std::min(text.find_first_of(",]} \t\r\n", at), text.size());
      made.text_ = text.substr(at, stop - at);
      need(!made.text_.empty());
      at = stop;
      const bool boolean = made.text_ == "true" || made.text_ == "false";
      made.type_ = boolean ? Type::boolean : made.text_ == "null" ? Type::null : Type::number;
    }
    return made;
  }

  // Returns the text up to its closing quote. Letters that are written as numbers become "?": nothing here needs them.
  static std::string rest_of_text(const std::string& text, std::size_t& at) {
    std::string found;
    while (true) {
      need(at < text.size());
      const char letter = text[at++];
      if (letter == '"') return found;
      if (letter != '\\') {
        found += letter;
        continue;
      }
      need(at < text.size());
      const char kind = text[at++];
      found += kind == '"' || kind == '\\' || kind == '/' ? kind : '?';
      if (kind == 'u') at += 4;
    }
  }

  Type type_ = Type::null;
  std::string text_;  // of a number, too
  std::vector<Json> items_;
  std::map<std::string, Json> entries_;
};

// Returns a text as JSON, with its quotes.
inline std::string quoted(const std::string& text) {
  std::string made = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') made += '\\';
    if (static_cast<unsigned char>(letter) >= 0x20) {
      made += letter;
    } else {
      char code[7];
      std::snprintf(code, sizeof code, "\\u%04x", letter);
      made += code;
    }
  }
  return made + '"';
}

}  // namespace edgekit
