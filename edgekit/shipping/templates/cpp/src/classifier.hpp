// Classifies pictures with the model of a kit, exactly as it was trained and measured.
//
//     #include "classifier.hpp"
//     edgekit::Classifier model("kit");                              // a folder: model, labels.txt, preprocess.json
//     for (const auto& answer : model.classify(pixels, length, width, height))   // RGB bytes, upright; best first
//         std::cout << answer.label << ' ' << answer.probability << '\n';
//
// Rows anywhere in memory, of a camera or of OpenCV, which has BGR:
//
//     model.classify(mat.cols, mat.rows, edgekit::Format::bgr, [&](int y) { return mat.ptr(y); });
//
// Errors are exceptions of <stdexcept>. An object is for one thread at a time. Made by edgekit.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "contract.hpp"
#include "files.hpp"
#include "fit.hpp"
#include "network.hpp"
#ifndef EDGEKIT_WITHOUT_RUNTIME
#include "runtime.hpp"
#endif

namespace edgekit {

// A class and its probability.
struct Answer {
  std::string label;
  double probability;
  int number;  // of the class, from 0
  float score;
};

// Opens the model of a kit.
inline std::unique_ptr<Network> open_network([[maybe_unused]] const std::string& folder,
                                             [[maybe_unused]] const Contract& contract,
                                             [[maybe_unused]] const Options& options) {
#ifdef EDGEKIT_WITHOUT_RUNTIME
  throw NoRuntime("the model's runtime was not found when this program was built: CMake says what to set");
#else
  const Json manifest = Json::parse(read_bytes(folder + "/manifest.json"));
  return open_runtime(folder + "/" + manifest["model"].text(), manifest["precision"].text(), contract, options);
#endif
}

class Classifier {
 public:
  explicit Classifier(const std::string& folder, const Options& options = {})
      : contract_(read_contract(folder + "/preprocess.json")),
        labels_(read_labels(folder + "/labels.txt", contract_)),
        network_(open_network(folder, contract_, options)) {}

  // Returns every class, the most probable first. length: of the pixels, bytes.
  std::vector<Answer> classify(const std::uint8_t* pixels, std::size_t length, int width, int height,
                               Format format = Format::rgb) {
    return answers(fit(pixels, length, width, height, contract_.rule, format));
  }

  // The same of rows. row: a function from y to the first byte of that row.
  template <class Row>
  std::vector<Answer> classify(int width, int height, Format format, Row row) {
    return answers(fit(width, height, format, row, contract_.rule));
  }

 private:
  std::vector<Answer> answers(const std::vector<std::uint8_t>& square) {
    const std::vector<float> scores = network_->scores(to_tensor(square, contract_));
    const std::vector<double> shares = probabilities(scores, contract_.temperature);
    std::vector<int> order(shares.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int one, int other) { return shares[one] > shares[other]; });
    std::vector<Answer> found;
    for (const int number : order) found.push_back({labels_[number], shares[number], number, scores[number]});
    return found;
  }

  Contract contract_;
  std::vector<std::string> labels_;
  std::unique_ptr<Network> network_;
};

}  // namespace edgekit
