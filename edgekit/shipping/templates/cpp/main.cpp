// classifier PICTURE...             print the three most probable classes
// classifier --check [--json]       compare this machine with the golden set, level by level; exit status 1 if it differs
//
// --kit FOLDER: where the model lies; default: the folder above this program. Made by edgekit.
#include <iostream>

#include "golden.hpp"

namespace {

int check(const std::string& folder, bool json) {
  bool wrong = false;
  const auto results = edgekit::check(folder);
  if (json) std::cout << edgekit::as_json(results) << "\n";
  for (const auto& result : results) {
    wrong = wrong || !result.problems.empty();
    if (json) continue;
    std::cout << result.level << ": ";
    if (!result.skipped.empty())
      std::cout << "not checked: " << result.skipped << "\n";
    else if (result.problems.empty())
      std::cout << "ok (" << result.checked << " checked)\n";
    else
      std::cout << result.problems.size() << " of " << result.checked << " WRONG\n";
    if (!result.cause.empty()) std::cout << "    cause: " << result.cause << "\n";
    for (const auto& problem : result.problems) std::cout << "    " << problem << "\n";
  }
  return wrong;
}

int classify(const std::string& folder, const std::vector<std::string>& paths) {
#ifdef EDGEKIT_WITHOUT_RUNTIME
  std::cerr << "built without the model's runtime\n";
  return paths.empty() || folder.empty() ? 2 : 1;
#else
  edgekit::Classifier model(folder);
  for (const auto& path : paths) {
    const auto picture = edgekit::decode(path, edgekit::contract::preprocess.background);
    const auto answers = model.classify(picture.rgb.data(), picture.width, picture.height);
    std::cout << path << ":";
    for (size_t i = 0; i < answers.size() && i < 3; ++i)
      std::cout << (i ? ", " : " ") << answers[i].label << " " << std::lround(1000 * answers[i].probability) / 10.0 << " %";
    std::cout << "\n";
  }
  return 0;
#endif
}

}  // namespace

int main(int count, char** arguments) {
  const std::string program = arguments[0];
  const size_t slash = program.rfind('/');
  std::string folder = (slash == std::string::npos ? "." : program.substr(0, slash)) + "/..";
  std::vector<std::string> paths;
  bool checks = false, json = false;
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    if (argument == "--check")
      checks = true;
    else if (argument == "--json")
      json = true;
    else if (argument == "--kit" && i + 1 < count)
      folder = arguments[++i];
    else
      paths.push_back(argument);
  }
  if (!checks && paths.empty()) {
    std::cerr << "usage: classifier PICTURE... | --check [--json]   [--kit FOLDER]\n";
    return 2;
  }
  try {
    return checks ? check(folder, json) : classify(folder, paths);
  } catch (const std::exception& error) {
    std::cerr << "classifier: " << error.what() << "\n";
    return 1;
  }
}
