// Classify pictures with the model of this kit.
//
//     edgekit::Classifier model("path/of/this/folder");
//     for (const auto& answer : model.classify(rgb, width, height))   // upright RGB, 3 bytes a pixel
//       std::cout << answer.label << " " << answer.probability << "\n";
//
// Do not resize pictures yourself: classify gives the network the pixels that it was trained and measured with.
// One Classifier for each thread. Errors are std::runtime_error or std::invalid_argument. Made by edgekit.
#pragma once

#include <algorithm>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

#include "contract.hpp"
#include "fit.hpp"
#include "runtime.hpp"
#include "tensor.hpp"

namespace edgekit {

struct Answer {
  std::string label;
  double probability;
  int number;  // of the class
  float score;
};

class Classifier {
 public:
  // `folder` holds the model and labels.txt.
  explicit Classifier(const std::string& folder = ".")
      : labels_(read_labels(folder + "/labels.txt")), model_(folder + "/" + contract::model) {}

  const std::vector<std::string>& labels() const { return labels_; }

  // Returns every class, the most probable first. `rgb`: upright, width * height * 3 bytes, row by row.
  std::vector<Answer> classify(const uint8_t* rgb, int width, int height) {
    return classify(width, height, 3, [=](int y) { return rgb + static_cast<size_t>(y) * width * 3; });
  }

  // The same for rows that lie anywhere, such as those of a camera with padding or a fourth channel: see fit.
  template <class Row>
  std::vector<Answer> classify(int width, int height, int channels, Row row) {
    const auto found = scores(fit(width, height, channels, row, contract::preprocess));
    const auto shares = probabilities(found);
    std::vector<int> order(found.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return shares[a] > shares[b]; });
    std::vector<Answer> answers;
    for (const int n : order) answers.push_back({labels_[n], shares[n], n, found[n]});
    return answers;
  }

  // Returns the scores of a square of pixels.
  std::vector<float> scores(const std::vector<uint8_t>& square) {
    auto found = model_.run(to_tensor(square));
    if (found.size() != labels_.size())
      throw std::runtime_error("the model has " + std::to_string(found.size()) + " classes, labels.txt " +
                               std::to_string(labels_.size()));
    return found;
  }

  static std::vector<std::string> read_labels(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + " cannot be read");
    std::vector<std::string> labels;
    for (std::string line; std::getline(file, line);) labels.push_back(line);
    if (labels.size() != size_t(contract::classes))
      throw std::runtime_error(path + " has " + std::to_string(labels.size()) + " labels instead of " +
                               std::to_string(contract::classes) + ": it is not that of this model");
    return labels;
  }

 private:
  std::vector<std::string> labels_;
  Runtime model_;
};

}  // namespace edgekit
