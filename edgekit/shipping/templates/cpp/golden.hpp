// Compare this program with the golden set of the kit, level by level. golden.tsv has lines of fields with tabs between
// them; probes.rgb and scores.f32 are plain arrays. Made by edgekit.
#pragma once

#include <cstdio>
#include <functional>
#include <iostream>
#include <map>
#include <sstream>

#include "contract.hpp"
#include "decode.hpp"
#include "fit.hpp"
#include "tensor.hpp"
#ifndef EDGEKIT_WITHOUT_RUNTIME
#include "classifier.hpp"
#endif

namespace edgekit {

struct Result {
  std::string level;
  size_t checked = 0;
  std::vector<std::string> problems = {};
  std::string cause = {}, skipped = {};  // what the pixels look like, if they differ; why nothing was checked
};

using Square = std::vector<uint8_t>;
using Probe = std::vector<uint8_t>;

struct Case {
  std::string kind, source, crc32;
  int most = 0, row = -1, best = 0;  // row: in scores.f32; -1: without scores
  double probability = 0;
  Probe probe = {};
  std::map<std::string, Probe> drifts = {};  // what wrong programs give

  std::string name() const { return kind == "file" ? source : "noise " + source.substr(0, source.rfind('x')); }
};

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " cannot be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::vector<std::string> split(const std::string& line, char by) {
  std::vector<std::string> fields;
  std::istringstream stream(line);
  for (std::string field; std::getline(stream, field, by);) fields.push_back(field);
  return fields;
}

struct Golden {
  int probe = 0;
  std::vector<std::vector<double>> values;  // level, and the tensor's values of R, G and B
  std::map<std::string, double> tolerance;
  std::vector<std::pair<std::string, std::string>> drifts;  // name, and what that program does
  std::vector<Case> cases;
  std::string scores;  // bytes of scores.f32

  // Throws std::runtime_error: the files are missing or damaged.
  explicit Golden(const std::string& folder) {
    try {
      read(folder);
    } catch (const std::logic_error&) {  // a field that is missing or no number
      throw std::runtime_error(folder + "/golden.tsv is damaged");
    }
  }

 private:
  void read(const std::string& folder) {
    const std::string probes = read_file(folder + "/probes.rgb");
    scores = read_file(folder + "/scores.f32");
    std::istringstream lines(read_file(folder + "/golden.tsv"));
    const auto probe_at = [&](const std::string& row) {
      const int number = std::stoi(row);
      const size_t bytes = size_t(probe) * probe * 3, start = size_t(number) * bytes;
      if (number < 0 || start + bytes > probes.size()) throw std::runtime_error("probes.rgb is cut short");
      return Probe(probes.begin() + start, probes.begin() + start + bytes);
    };
    for (std::string line; std::getline(lines, line);) {
      auto f = split(line, '\t');
      f.resize(9);  // fields that are missing are empty, and no numbers
      if (f[0] == "schema" && f[1] != "1") throw std::runtime_error("golden.tsv is of another schema than 1");
      if (f[0] == "probe") probe = std::stoi(f[1]);
      if (probe < 0 || probe > 1024) throw std::out_of_range("probe");
      if (f[0] == "value") values.push_back({std::stod(f[1]), std::stod(f[2]), std::stod(f[3]), std::stod(f[4])});
      if (f[0] == "tolerance") tolerance[f[1]] = std::stod(f[2]);
      if (f[0] == "drift") drifts.emplace_back(f[1], f[2]);
      if (f[0] == "wrong" && cases.empty()) throw std::out_of_range("wrong");
      if (f[0] == "wrong") cases.back().drifts[f[1]] = probe_at(f[2]);
      if (f[0] != "case") continue;
      Case made{f[1], f[2], f[3], std::stoi(f[4])};
      made.probe = probe_at(f[5]);
      if (f[6] != "-") {
        made.row = std::stoi(f[6]);
        made.best = std::stoi(f[7]);
        if (made.row < 0 || made.best < 0 || made.best >= contract::classes) throw std::out_of_range("class");
        made.probability = std::stod(f[8]);
      }
      cases.push_back(made);
    }
  }
};

// Returns the pixels of a case without a file: of a formula that every language has.
inline Picture noise(const std::string& source) {
  const auto numbers = split(source, 'x');
  if (numbers.size() != 3) throw std::runtime_error("golden.tsv is damaged: noise of " + source);
  Picture made{std::stoi(numbers[0]), std::stoi(numbers[1]), {}};
  if (made.width < 1 || made.height < 1 || made.width > 65535 || made.height > 65535)
    throw std::runtime_error("golden.tsv is damaged: noise of " + source);
  uint32_t state = uint32_t(std::stoul(numbers[2]));
  made.rgb.resize(size_t(made.width) * made.height * 3);
  for (uint8_t& byte : made.rgb) {
    state = 1664525u * state + 1013904223u;
    byte = uint8_t(state >> 24);
  }
  return made;
}

inline std::string crc32(const Square& square) {
  uint32_t value = ~0u;
  for (const uint8_t byte : square) {
    value ^= byte;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0xEDB88320u : 0);
  }
  char text[9];
  std::snprintf(text, sizeof text, "%08x", unsigned(~value));
  return text;
}

inline Probe probe_of(const Square& square, int count) {
  const int size = contract::preprocess.size;
  Probe found;
  for (int y = 0; y < count; ++y)
    for (int x = 0; x < count; ++x) {
      const size_t at = (size_t(2 * y + 1) * size / (2 * count)) * size + size_t(2 * x + 1) * size / (2 * count);
      found.insert(found.end(), &square[at * 3], &square[at * 3] + 3);
    }
  return found;
}

inline std::pair<double, int> difference(const Probe& one, const Probe& other) {  // sum and largest
  double sum = 0;
  int most = 0;
  for (size_t i = 0; i < one.size(); ++i) {
    const int gap = std::abs(int(one[i]) - int(other[i]));
    sum += gap;
    most = std::max(most, gap);
  }
  return {sum, most};
}

// Returns what a program that gives these pixels does wrong; "" if it is none of the known mistakes.
inline std::string cause_of(const std::vector<std::pair<const Case*, Square>>& found, const Golden& golden) {
  const auto total = [&](const std::string& drift) {
    double sum = 0;
    for (const auto& [made, square] : found) {
      if (made->drifts.empty()) continue;
      const auto known = made->drifts.find(drift);
      sum += difference(probe_of(square, golden.probe), known == made->drifts.end() ? made->probe : known->second).first;
    }
    return sum;
  };
  const double right = total("");
  std::string cause;
  double least = right / 2;
  for (const auto& [name, words] : golden.drifts)
    if (const double sum = total(name); sum < least) {
      least = sum;
      cause = name + ": " + words;
    }
  return cause;
}

// Compares one level of pixels: `kind` is noise or file.
inline Result check_pixels(const std::string& kind, const Golden& golden, const std::function<Picture(const Case&)>& read,
                           std::map<const Case*, Square>& squares) {
  Result result{kind == "noise" ? "pixels to tensor" : "picture file to tensor"};
  std::vector<std::pair<const Case*, Square>> found;
  for (const Case& made : golden.cases) {
    if (made.kind != kind) continue;
    const Picture picture = read(made);
    const auto row = [&](int y) { return &picture.rgb[size_t(y) * picture.width * 3]; };
    const Square square = fit(picture.width, picture.height, 3, row, contract::preprocess);
    const int most = difference(probe_of(square, golden.probe), made.probe).second;
    if (made.most ? most > made.most : crc32(square) != made.crc32)
      result.problems.push_back(made.name() + ": other pixels, up to " + std::to_string(most) + " levels off");
    squares[&made] = square;
    found.emplace_back(&made, square);
  }
  result.checked = found.size();
  if (!result.problems.empty()) result.cause = cause_of(found, golden);
  return result;
}

inline std::vector<Result> check(const std::string& folder) {
  const Golden golden(folder + "/golden");
  std::map<const Case*, Square> squares;
  std::vector<Result> results;
  results.push_back(check_pixels("noise", golden, [](const Case& made) { return noise(made.source); }, squares));
#if defined(EDGEKIT_PNG) && defined(EDGEKIT_JPEG)
  const auto read = [&](const Case& made) {
    return decode(folder + "/golden/" + made.source, contract::preprocess.background);
  };
  results.push_back(check_pixels("file", golden, read, squares));
#else
  results.push_back({"picture file to tensor", 0, {}, "", "built without libpng and libjpeg, which decode the files"});
#endif
  Result values{"values of the tensor", 3 * golden.values.size()};
  const size_t size = size_t(contract::preprocess.size), area = size * size;
  for (const auto& expected : golden.values) {
    const auto tensor = to_tensor(Square(area * 3, uint8_t(expected[0])));
    for (int channel = 0; channel < 3; ++channel) {
      const size_t at = contract::channels_first ? channel * area : channel;
      float value = contract::type == contract::Type::int8 ? int8_t(tensor[at]) : tensor[at];
      if (contract::type == contract::Type::float32) std::memcpy(&value, &tensor[at * sizeof value], sizeof value);
      if (std::abs(value - expected[1 + channel]) > 1e-5) {
        std::ostringstream text;
        text << "RGB"[channel] << " of " << expected[0] << ": " << value << " instead of " << expected[1 + channel]
             << " (mean, std, scale)";
        values.problems.push_back(text.str());
      }
    }
  }
  results.push_back(values);
#ifdef EDGEKIT_WITHOUT_RUNTIME
  for (const char* level : {"tensor to scores", "label and probability"})
    results.push_back({level, 0, {}, "", "built without the model's runtime"});
#else
  Classifier model(folder);
  const double most = golden.tolerance.at(Runtime::processor);
  Result scores{"tensor to scores"}, answers{"label and probability"};
  double largest = 0;
  for (const auto& [made, square] : squares) {
    if (made->row < 0) continue;
    const auto found = model.scores(square);
    std::vector<float> expected(found.size());
    if ((size_t(made->row) + 1) * expected.size() * sizeof(float) > golden.scores.size())
      throw std::runtime_error("scores.f32 is cut short");
    std::memcpy(expected.data(), &golden.scores[made->row * expected.size() * sizeof(float)], expected.size() * sizeof(float));
    double gap = 0;
    for (size_t i = 0; i < found.size(); ++i) gap = std::max(gap, double(std::abs(found[i] - expected[i])));
    largest = std::max(largest, gap);
    if (!(gap <= most))
      scores.problems.push_back(made->name() + ": scores differ by " + std::to_string(gap) + ", more than " +
                                std::to_string(most));
    const int best = int(std::max_element(found.begin(), found.end()) - found.begin());
    const double share = probabilities(found)[made->best];
    if (best != made->best && found[best] - found[made->best] > 2 * most)
      answers.problems.push_back(made->name() + ": " + model.labels()[best] + " instead of " + model.labels()[made->best]);
    else if (std::abs(share - made->probability) > std::min(1.0, std::expm1(2 * most / contract::temperature)) + 1e-6)
      answers.problems.push_back(made->name() + ": probability " + std::to_string(share) + " instead of " +
                                 std::to_string(made->probability));
    ++scores.checked;
  }
  answers.checked = scores.checked;
  results.push_back(scores);
  results.push_back(answers);
  std::cerr << "largest difference of a score: " << largest << "\n";
#endif
  return results;
}

inline std::string quoted(const std::string& text) {  // as JSON
  std::string made = "\"";
  for (const char c : text) {
    char code[7];
    if (static_cast<unsigned char>(c) < 0x20) {
      std::snprintf(code, sizeof code, "\\u%04x", unsigned(c));
      made += code;
    } else {
      if (c == '"' || c == '\\') made += '\\';
      made += c;
    }
  }
  return made + "\"";
}

// Returns results as a JSON list of objects.
inline std::string as_json(const std::vector<Result>& results) {
  std::string made = "[";
  for (const Result& result : results) {
    made += (made.size() > 1 ? ", " : "") + ("{\"level\": " + quoted(result.level)) +
            ", \"checked\": " + std::to_string(result.checked) + ", \"problems\": [";
    for (size_t i = 0; i < result.problems.size(); ++i) made += (i ? ", " : "") + quoted(result.problems[i]);
    made += "], \"cause\": " + quoted(result.cause) + ", \"skipped\": " + quoted(result.skipped) + "}";
  }
  return made + "]";
}

}  // namespace edgekit
