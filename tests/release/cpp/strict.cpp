// Reads files as metadata is read, and prints what was taken of each: json, envelope or time.
#include <iostream>

#include "files.hpp"
#include "metadata.hpp"

int main(int count, char** words) {
  const std::string kind = words[1];
  for (int i = 2; i < count; ++i) {
    const std::string text = edgekit::read_bytes(words[i]);
    try {
      if (kind == "time") {
        std::cout << edgekit::seconds_of(text) << '\n';
      } else if (kind == "envelope") {
        const edgekit::Envelope found = edgekit::taken_apart(text);
        std::cout << found.signatures.size() << " signatures, " << found.bytes.size() << " bytes\n";
      } else {
        edgekit::Value::parse(text, kind == "json");
        std::cout << "taken\n";
      }
    } catch (const edgekit::Damaged& error) {
      std::cout << error.what() << '\n';
    }
  }
}
