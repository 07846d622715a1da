// Compares this program and its runtime with the golden set of the kit, level by level, and names what it does wrong.
//
// golden/golden.tsv has lines of fields with tabs between them: what the pictures are, the CRC-32 of the square that
// the network takes of each, the model's best class, and what known mistakes look like.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "contract.hpp"
#include "files.hpp"
#include "fit.hpp"
#include "network.hpp"
#include "picture.hpp"

namespace edgekit::golden {

using Bytes = std::vector<std::uint8_t>;
using Scores = std::function<std::vector<float>(const Bytes& tensor)>;  // throws NoRuntime where there is none

// Result of a level. problems: one line each; cause: of the pixels that differ; skipped: why nothing was checked.
struct Result {
  std::string level;
  std::size_t checked = 0;
  std::vector<std::string> problems;
  std::string cause, skipped;
};

// A picture. row: of its scores, -1 for a case without; most: levels that its pixels may differ by.
struct Case {
  std::string name, source;
  bool is_file;
  std::uint32_t crc32;
  int most, row, best;
  double probability;
  Bytes probe;                          // pixels at the places that are looked at
  std::map<std::string, Bytes> drifts;  // the same of wrong programs, by the name of the mistake
};

// What golden.tsv says.
struct Set {
  int size = 0, places = 0;
  std::vector<std::vector<double>> values;  // level, and what the tensor holds for R, G and B
  std::map<std::string, double> tolerance;  // of scores, by processor
  std::vector<std::pair<std::string, std::string>> drifts;  // name, and what that program does wrong
  std::vector<Case> cases;
  std::vector<float> scores;  // cases * classes
};

inline std::string format(const char* form, double value) {
  char text[64];
  std::snprintf(text, sizeof text, form, value);
  return text;
}

inline std::vector<std::string> split(const std::string& line, char between) {
  std::vector<std::string> fields;
  std::istringstream stream(line);
  for (std::string field; std::getline(stream, field, between);) fields.push_back(field);
  return fields;
}

// Reads a golden set. Throws std::runtime_error.
inline Set read(const std::string& folder) {
  const std::string probes = read_bytes(folder + "/probes.rgb"), scores = read_bytes(folder + "/scores.f32");
  Set set;
  set.scores.resize(scores.size() / 4);
  for (std::size_t i = 0; i < set.scores.size(); ++i) {  // little-endian, on any machine
    std::uint32_t bits = 0;
    for (int byte = 3; byte >= 0; --byte) bits = bits << 8 | static_cast<std::uint8_t>(scores[4 * i + byte]);
    std::memcpy(&set.scores[i], &bits, 4);
  }
  const auto probe = [&](const std::string& row) {
    const std::size_t length = static_cast<std::size_t>(set.places) * set.places * 3;
    const auto start = probes.begin() + static_cast<std::ptrdiff_t>(std::stoul(row) * length);
    return Bytes(start, start + static_cast<std::ptrdiff_t>(length));
  };
  for (const std::string& line : split(read_bytes(folder + "/golden.tsv"), '\n')) {
    const std::vector<std::string> fields = split(line, '\t');
    const std::string& kind = fields.at(0);
    if (kind == "schema" && fields.at(1) != "1") throw std::runtime_error("golden.tsv: this program knows schema 1");
    if (kind == "size") set.size = std::stoi(fields.at(1));
    if (kind == "probe") set.places = std::stoi(fields.at(1));
    if (kind == "tolerance") set.tolerance[fields.at(1)] = to_number(fields.at(2));
    if (kind == "drift") set.drifts.emplace_back(fields.at(1), fields.at(2));
    if (kind == "value") {
      set.values.emplace_back();
      for (std::size_t i = 1; i < fields.size(); ++i) set.values.back().push_back(to_number(fields[i]));
    }
    if (kind == "wrong") set.cases.back().drifts[fields.at(1)] = probe(fields.at(2));
    if (kind == "case") {
      const bool is_file = fields.at(1) == "file", scored = fields.at(6) != "-";
      const std::string& source = fields.at(2);
      set.cases.push_back({is_file ? source : "noise " + source.substr(0, source.rfind('x')), source, is_file,
                           static_cast<std::uint32_t>(std::stoul(fields.at(3), nullptr, 16)), std::stoi(fields.at(4)),
                           scored ? std::stoi(fields[6]) : -1, scored ? std::stoi(fields.at(7)) : 0,
                           scored ? to_number(fields.at(8)) : 0.0, probe(fields.at(5)), {}});
    }
  }
  return set;
}

// Returns the square of a case: of a file, or of pixels that a formula makes.
inline Bytes square_of(const Case& each, const std::string& folder, const Rule& rule) {
  if (each.is_file) {
    Picture picture = load(folder + "/" + each.source, rule.background);
    return fit(picture.width(), picture.height(), Format::rgb, [&](int y) { return picture.row(y); }, rule);
  }
  const std::vector<std::string> sides = split(each.source, 'x');
  const int width = std::stoi(sides.at(0)), height = std::stoi(sides.at(1));
  std::uint32_t state = static_cast<std::uint32_t>(std::stoul(sides.at(2)));
  Bytes pixels(static_cast<std::size_t>(width) * height * 3);
  for (std::uint8_t& pixel : pixels) pixel = static_cast<std::uint8_t>((state = 1664525u * state + 1013904223u) >> 24);
  return fit(pixels.data(), pixels.size(), width, height, rule);
}

inline std::uint32_t crc32(const Bytes& bytes) {
  std::uint32_t found = ~0u;
  for (const std::uint8_t byte : bytes) {
    found ^= byte;
    for (int bit = 0; bit < 8; ++bit) found = found >> 1 ^ (found & 1 ? 0xedb88320u : 0u);
  }
  return ~found;
}

// Returns the pixels at the places of a probe.
inline Bytes probe(const Bytes& square, int size, int places) {
  Bytes found;
  const auto at = [&](int place) { return static_cast<std::size_t>((2 * place + 1) * size / (2 * places)); };
  for (int y = 0; y < places; ++y) {
    for (int x = 0; x < places; ++x) {
      const auto pixel = square.begin() + static_cast<std::ptrdiff_t>((at(y) * size + at(x)) * 3);
      found.insert(found.end(), pixel, pixel + 3);
    }
  }
  return found;
}

// Returns the mean and the largest difference of two probes, in levels.
inline std::pair<double, int> differences(const Bytes& one, const Bytes& other) {
  int most = 0;
  double total = 0;
  for (std::size_t i = 0; i < one.size(); ++i) {
    const int gap = std::abs(one[i] - other[i]);
    most = std::max(most, gap);
    total += gap;
  }
  return {total / static_cast<double>(one.size()), most};
}

// Returns how the pixels of a case differ from what they must be; "" if they do not.
inline std::string wrong(const Case& each, const Bytes& square, const Set& set) {
  const int most = differences(probe(square, set.size, set.places), each.probe).second;
  const std::string levels = std::to_string(most) + " levels off";
  if (each.most > 0) {
    return most > each.most ? each.name + ": " + levels + ", more than " + std::to_string(each.most) : "";
  }
  return crc32(square) == each.crc32 ? "" : each.name + ": other pixels, up to " + levels + " where it was looked";
}

// Returns what a program that gives these pixels does wrong; "" if it is none of the known mistakes.
inline std::string cause(const std::vector<const Case*>& cases, const std::vector<Bytes>& squares, const Set& set) {
  const auto distance = [&](const std::string& name) {
    double total = 0;
    for (std::size_t i = 0; i < cases.size(); ++i) {
      const auto drift = cases[i]->drifts.find(name);
      const Bytes& other = drift == cases[i]->drifts.end() ? cases[i]->probe : drift->second;
      if (!cases[i]->drifts.empty()) total += differences(probe(squares[i], set.size, set.places), other).first;
    }
    return total;
  };
  double least = distance("") / 2;
  std::string best;
  for (const auto& [name, text] : set.drifts) {
    if (const double found = distance(name); found < least) {
      least = found;
      best = name + ": " + text;
    }
  }
  return best;
}

// Compares the tensor's values of black, grey and white pixels.
inline Result values(const Contract& contract, const Set& set) {
  Result result{"values of the tensor", 9, {}, "", ""};
  const std::size_t places = static_cast<std::size_t>(set.size) * set.size;
  for (const std::vector<double>& line : set.values) {
    const Bytes tensor = to_tensor(Bytes(places * 3, static_cast<std::uint8_t>(line[0])), contract);
    for (std::size_t channel = 0; channel < 3; ++channel) {
      const std::size_t index = contract.channels_first ? channel * places : channel;
      double got = contract.type == Type::uint8 ? tensor[index] : static_cast<std::int8_t>(tensor[index]);
      if (contract.type == Type::float32) {
        float value;
        std::memcpy(&value, &tensor[index * 4], 4);
        got = value;
      }
      if (!(std::fabs(got - line[channel + 1]) <= 1e-5)) {
        result.problems.push_back(std::string(1, "RGB"[channel]) + " of " + format("%g", line[0]) + ": " +
                                  format("%.6g", got) + " instead of " + format("%.6g", line[channel + 1]) +
                                  " (mean, std, scale)");
      }
    }
  }
  return result;
}

// Returns how the answer of a case differs; classes within the tolerance of the best count as equal.
inline std::string wrong_label(const Case& each, const std::vector<float>& scores, const Contract& contract,
                               const std::vector<std::string>& labels, double most) {
  const std::vector<double> shares = probabilities(scores, contract.temperature);
  const auto best = std::max_element(scores.begin(), scores.end()) - scores.begin();
  if (best != each.best && scores[best] - scores[each.best] > 2 * most) {
    return each.name + ": '" + labels[best] + "' instead of '" + labels[each.best] + "'";
  }
  const double room = std::min(1.0, std::expm1(2 * most / contract.temperature)) + 1e-6;
  if (!(std::fabs(shares[each.best] - each.probability) <= room)) {
    return each.name + ": probability " + format("%.4f", shares[each.best]) + " instead of " +
           format("%.4f", each.probability);
  }
  return "";
}

// Compares the scores and the answers.
inline std::vector<Result> answers(const std::vector<std::pair<const Case*, Bytes>>& scored, const Contract& contract,
                                   const std::vector<std::string>& labels, const Set& set, const Scores& run,
                                   double most) {
  Result gaps{"tensor to scores", 0, {}, "", ""}, best{"label and probability", 0, {}, "", ""};
  try {
    for (const auto& [each, square] : scored) {
      const std::vector<float> scores = run(to_tensor(square, contract));
      double gap = 0;
      for (std::size_t i = 0; i < labels.size(); ++i) {
        const double here = std::fabs(scores.at(i) - set.scores.at(each->row * labels.size() + i));
        gap = here <= gap ? gap : here;  // NaN is kept
      }
      if (!(gap <= most)) {
        gaps.problems.push_back(each->name + ": scores differ by " + format("%.3g", gap) + ", more than " +
                                format("%.3g", most));
      }
      const std::string text = wrong_label(*each, scores, contract, labels, most);
      if (!text.empty()) best.problems.push_back(text);
      gaps.checked = ++best.checked;
    }
  } catch (const NoRuntime& error) {
    gaps.skipped = best.skipped = error.what();
  }
  return {gaps, best};
}

// Compares everything with the golden set in a folder. run: the model. processor: cpu or gpu, whose tolerance counts.
inline std::vector<Result> check(const std::string& folder, const Contract& contract,
                                 const std::vector<std::string>& labels, const Scores& run,
                                 const std::string& processor) {
  const Set set = read(folder);
  std::vector<Result> results;
  std::vector<std::pair<const Case*, Bytes>> scored;
  for (const bool is_file : {false, true}) {
    Result result{is_file ? "picture file to tensor" : "pixels to tensor", 0, {}, "", ""};
    if (is_file) result.skipped = missing_decoders();
    std::vector<const Case*> cases;
    std::vector<Bytes> squares;
    for (const Case& each : set.cases) {
      if (each.is_file != is_file || !result.skipped.empty()) continue;
      cases.push_back(&each);
      squares.push_back(square_of(each, folder, contract.rule));
      if (each.row >= 0) scored.emplace_back(&each, squares.back());
      const std::string text = wrong(each, squares.back(), set);
      if (!text.empty()) result.problems.push_back(text);
    }
    result.checked = cases.size();
    if (!result.problems.empty()) result.cause = cause(cases, squares, set);
    results.push_back(result);
  }
  results.push_back(values(contract, set));
  for (const Result& result : answers(scored, contract, labels, set, run, set.tolerance.at(processor))) {
    results.push_back(result);
  }
  return results;
}

// Returns results as a JSON list.
inline std::string to_json(const std::vector<Result>& results) {
  std::string text;
  for (const Result& result : results) {
    std::string problems;
    for (const std::string& problem : result.problems) problems += (problems.empty() ? "" : ", ") + quoted(problem);
    text += std::string(text.empty() ? "[" : ", ") + "{\"level\": " + quoted(result.level) +
            ", \"checked\": " + std::to_string(result.checked) + ", \"problems\": [" + problems +
            "], \"cause\": " + quoted(result.cause) + ", \"skipped\": " + quoted(result.skipped) + "}";
  }
  return text + "]";
}

}  // namespace edgekit::golden
