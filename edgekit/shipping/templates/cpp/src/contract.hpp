// The contract of the model, from preprocess.json: from pixels to the input tensor, and from scores to probabilities.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "files.hpp"
#include "fit.hpp"

namespace edgekit {

enum class Type { uint8, int8, float32 };  // of the values of a tensor

// What preprocess.json says.
struct Contract {
  Rule rule;
  Type type = Type::uint8;
  bool channels_first = false;  // NCHW
  std::array<float, 3> mean{}, std{};  // of R, G, B, for pixels of 0 to 1; of float32 tensors
  double temperature = 1.0;
  int classes = 0;
  std::string labels_sha256;
};

namespace detail {

// Returns the value of a name in a list of pairs.
template <class Value>
Value one_of(const std::string& name, std::initializer_list<std::pair<const char*, Value>> known) {
  for (const auto& [other, value] : known) {
    if (name == other) return value;
  }
  throw std::runtime_error("preprocess.json: this program does not know \"" + name + "\"");
}

}  // namespace detail

// Reads preprocess.json. Throws std::runtime_error for what this program does not know.
inline Contract read_contract(const std::string& path) {
  const Json document = Json::parse(read_bytes(path));
  if (document["schema"].number() != 1) throw std::runtime_error(path + ": this program knows schema 1");
  const auto whole = [](const Json& value) { return static_cast<int>(value.number()); };
  Contract made;
  made.rule.image_size = whole(document["image_size"]);
  made.rule.resize_size = whole(document["resize_size"]);
  made.rule.geometry = detail::one_of<Geometry>(
      document["geometry"].text(),
      {{"centre-box", Geometry::centre_box}, {"whole", Geometry::whole}, {"bars", Geometry::bars}});
  made.rule.kernel = detail::one_of<Kernel>(document["resample"].text(),
                                            {{"bilinear", Kernel::bilinear}, {"bicubic", Kernel::bicubic}});
  const unsigned long colour = std::stoul(document["background"].text().substr(1), nullptr, 16);
  for (int i = 0; i < 3; ++i) made.rule.background[i] = static_cast<std::uint8_t>(colour >> (16 - 8 * i));
  const Json& tensor = document["tensor"];
  made.type = detail::one_of<Type>(tensor["type"].text(),
                                   {{"uint8", Type::uint8}, {"int8", Type::int8}, {"float32", Type::float32}});
  made.channels_first = detail::one_of<bool>(tensor["layout"].text(), {{"NCHW", true}, {"NHWC", false}});
  for (int i = 0; i < 3 && made.type == Type::float32; ++i) {
    made.mean[i] = static_cast<float>(tensor["mean"].items().at(i).number());
    made.std[i] = static_cast<float>(tensor["std"].items().at(i).number());
  }
  const Json& scores = document["scores"];
  made.temperature = scores["temperature"].is_null() ? 1.0 : scores["temperature"].number();
  made.classes = whole(scores["classes"]);
  made.labels_sha256 = document["labels_sha256"].text();
  return made;
}

// Returns the classes of labels.txt, in the order of the scores. Throws std::runtime_error if it is another model's.
inline std::vector<std::string> read_labels(const std::string& path, const Contract& contract) {
  const std::string text = read_bytes(path);
  if (sha256(text) != contract.labels_sha256) {
    throw std::runtime_error(
        "labels.txt is not the one that the model was trained with (preprocess.json has its hash)");
  }
  std::vector<std::string> labels;
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t stop = std::min(text.find('\n', start), text.size());
    labels.push_back(text.substr(start, stop - start));
    start = stop + 1;
  }
  if (static_cast<int>(labels.size()) != contract.classes) {
    throw std::runtime_error("labels.txt has " + std::to_string(labels.size()) + " classes, the model " +
                             std::to_string(contract.classes));
  }
  return labels;
}

// Returns the bytes of the model's input of one square: pixels, pixels - 128, or (pixel / 255 - mean) / std.
inline std::vector<std::uint8_t> to_tensor(const std::vector<std::uint8_t>& square, const Contract& contract) {
  const std::size_t places = square.size() / 3;
  const std::size_t width = contract.type == Type::float32 ? sizeof(float) : 1;
  std::vector<std::uint8_t> tensor(square.size() * width);
  for (std::size_t channel = 0; channel < 3; ++channel) {
    const float centre = contract.mean[channel] * 255, spread = contract.std[channel] * 255;
    for (std::size_t place = 0; place < places; ++place) {
      const std::uint8_t pixel = square[place * 3 + channel];
      std::uint8_t* to = &tensor[(contract.channels_first ? channel * places + place : place * 3 + channel) * width];
      if (contract.type == Type::float32) {
        const float value = (static_cast<float>(pixel) - centre) / spread;
        std::memcpy(to, &value, sizeof value);
      } else {
        *to = contract.type == Type::int8 ? pixel ^ 0x80 : pixel;  // the same bits as pixel - 128
      }
    }
  }
  return tensor;
}

// Returns the softmax of scores over a temperature.
inline std::vector<double> probabilities(const std::vector<float>& scores, double temperature) {
  const double most = *std::max_element(scores.begin(), scores.end());
  std::vector<double> shares;
  double total = 0;
  for (const float score : scores) {
    shares.push_back(std::exp((score - most) / temperature));
    total += shares.back();
  }
  for (double& share : shares) share /= total;
  return shares;
}

}  // namespace edgekit
