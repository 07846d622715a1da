// Builds the engine of an ONNX file and prints its path: engine FILE PRECISION
#include <iostream>

#include "runtime.hpp"

int main(int, char** words) {
  edgekit::Log log;
  std::cout << edgekit::detail::built(edgekit::detail::source_of(words[1]), words[2], log) << '\n';
}
