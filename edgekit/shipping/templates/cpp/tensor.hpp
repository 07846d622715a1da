// From a square of pixels to the model's input, and from scores to probabilities. Made by edgekit.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "contract.hpp"

namespace edgekit {

// Returns the bytes of the model's input, of a square of pixels.
inline std::vector<uint8_t> to_tensor(const std::vector<uint8_t>& square) {
  const size_t area = static_cast<size_t>(contract::preprocess.size) * contract::preprocess.size;
  if (square.size() != 3 * area)
    throw std::invalid_argument("a square has " + std::to_string(3 * area) + " bytes, not " +
                                std::to_string(square.size()));
  const size_t width = contract::type == contract::Type::float32 ? sizeof(float) : 1;
  std::vector<uint8_t> bytes(square.size() * width);
  for (size_t i = 0; i < square.size(); ++i) {
    const size_t channel = i % 3;
    const size_t to = contract::channels_first ? channel * area + i / 3 : i;
    if (contract::type == contract::Type::float32) {
      const float value = (static_cast<float>(square[i]) - contract::mean[channel] * 255.0f) / (contract::std[channel] * 255.0f);
      std::copy_n(reinterpret_cast<const uint8_t*>(&value), sizeof value, &bytes[to * sizeof value]);
    } else {
      bytes[to] = contract::type == contract::Type::int8 ? uint8_t(square[i] ^ 0x80) : square[i];  // pixel - 128
    }
  }
  return bytes;
}

// Returns the softmax of scores over the temperature.
inline std::vector<double> probabilities(const std::vector<float>& scores) {
  const double largest = *std::max_element(scores.begin(), scores.end());
  std::vector<double> shares;
  for (const float score : scores) shares.push_back(std::exp((score - largest) / contract::temperature));
  const double total = std::accumulate(shares.begin(), shares.end(), 0.0);
  for (double& share : shares) share /= total;
  return shares;
}

}  // namespace edgekit
