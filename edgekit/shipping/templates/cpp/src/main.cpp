// Classifies picture files, or compares this machine with the golden set. `classifier` alone shows how it is called.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "classifier.hpp"
#include "golden.hpp"
#include "picture.hpp"
#ifdef EDGEKIT_UPDATES
#include "updates.hpp"
#endif

namespace {

namespace fs = std::filesystem;

constexpr const char* usage =
    "classifier PICTURE...          print the three most probable classes of PPM, PNG and JPEG files\n"
    "classifier --check [--json]    compare this machine with the golden set, level by level\n"
    "classifier --watch FOLDER      write NAME.json beside each picture that appears in a folder\n"
    "  --kit FOLDER                 with the model; default: the one around this program\n"
    "  --gpu                        LiteRT: run all of the model on the GPU, or fail\n"
    "  --threads N                  LiteRT: of the CPU\n"
#ifdef EDGEKIT_UPDATES
    "  --state DIR                  with --watch: use the newest release that `updates` left there, if it is right here\n"
#endif
    ;

// What the command line asks for.
struct Command {
  std::vector<std::string> pictures;
  std::string kit, watched, state;
  bool check = false, json = false;
  edgekit::Options options;
};

Command parsed(int count, char** words) {
  Command command;
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    const auto next = [&] {
      if (i + 1 == count) throw std::invalid_argument(word + " needs a value");
      return std::string(words[++i]);
    };
    if (word == "--check") {
      command.check = true;
    } else if (word == "--json") {
      command.json = true;
    } else if (word == "--watch") {
      command.watched = next();
    } else if (word == "--kit") {
      command.kit = next();
    } else if (word == "--gpu") {
      command.options.gpu = true;
    } else if (word == "--threads") {
      command.options.threads = std::atoi(next().c_str());
      if (command.options.threads < 1) throw std::invalid_argument("--threads needs a number above 0");
#ifdef EDGEKIT_UPDATES
    } else if (word == "--state") {
      command.state = next();
#endif
    } else if (word.compare(0, 1, "-") == 0) {
      throw std::invalid_argument("unknown option " + word);
    } else {
      command.pictures.push_back(word);
    }
  }
  if (!command.state.empty() && command.watched.empty()) throw std::invalid_argument("--state needs --watch");
  if (command.pictures.empty() == (command.check || !command.watched.empty())) return command;
  throw std::invalid_argument("name pictures, or --check, or --watch");
}

// Returns the folder of this program, or one above it, that has the model's manifest.
std::string find_kit() {
  for (fs::path folder = fs::canonical("/proc/self/exe").parent_path();; folder = folder.parent_path()) {
    if (fs::is_regular_file(folder / "manifest.json")) return folder.string();
    if (folder == folder.parent_path()) throw std::runtime_error("no kit is around this program: name it with --kit");
  }
}

std::vector<edgekit::Answer> classify(edgekit::Classifier& model, const edgekit::Rule& rule, const std::string& path) {
  edgekit::Picture picture = edgekit::load(path, rule.background);
  return model.classify(picture.width(), picture.height(), edgekit::Format::rgb, [&](int y) { return picture.row(y); });
}

int check(const std::string& kit, const Command& command) {
  const edgekit::Contract contract = edgekit::read_contract(kit + "/preprocess.json");
  const std::vector<std::string> labels = edgekit::read_labels(kit + "/labels.txt", contract);
  std::unique_ptr<edgekit::Network> network;
  const edgekit::golden::Scores run = [&](const std::vector<std::uint8_t>& tensor) {
    if (network == nullptr) network = edgekit::open_network(kit, contract, command.options);
    return network->scores(tensor);
  };
  const edgekit::Json manifest = edgekit::Json::parse(edgekit::read_bytes(kit + "/manifest.json"));
  const bool gpu = command.options.gpu || manifest["runtime"].text() == "tensorrt";
  const auto results = edgekit::golden::check(kit + "/golden", contract, labels, run, gpu ? "gpu" : "cpu");
  bool wrong = false;
  for (const edgekit::golden::Result& result : results) {
    wrong = wrong || !result.problems.empty();
    if (command.json) continue;
    const std::string state = !result.skipped.empty()   ? "not checked: " + result.skipped
                              : result.problems.empty() ? "ok"
                                                        : std::to_string(result.problems.size()) + " WRONG";
    std::cout << result.level << ": " << state << " (" << result.checked << " checked)\n";
    if (!result.cause.empty()) std::cout << "    cause: " << result.cause << '\n';
    for (std::size_t i = 0; i < result.problems.size() && i < 5; ++i) std::cout << "    " << result.problems[i] << '\n';
  }
  if (command.json) std::cout << edgekit::golden::to_json(results) << '\n';
  return wrong ? 1 : 0;
}

// Returns the answer for a picture as a JSON object: the three most probable classes, or why there are none.
std::string as_json(edgekit::Classifier& model, const edgekit::Rule& rule, const std::string& path) {
  std::string text;
  try {
    const auto answers = classify(model, rule, path);
    for (std::size_t i = 0; i < answers.size() && i < 3; ++i) {
      char share[32];
      std::snprintf(share, sizeof share, "%.6f", answers[i].probability);
      text += std::string(i > 0 ? ", " : "") + "{\"label\": " + edgekit::quoted(answers[i].label) +
              ", \"probability\": " + share + "}";
    }
  } catch (const std::exception& error) {
    return "{\"error\": " + edgekit::quoted(error.what()) + "}\n";
  }
  return "{\"answers\": [" + text + "]}\n";
}

// Answers each picture of a folder, for ever. Whoever writes one gives it another ending until it is whole.
int watch(edgekit::Classifier& model, const edgekit::Rule& rule, const fs::path& folder) {
  while (true) {
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
      const std::string ending = entry.path().extension().string();
      const fs::path answer = entry.path().string() + ".json";
      const bool is_picture = ending == ".jpg" || ending == ".jpeg" || ending == ".png" || ending == ".ppm";
      if (!is_picture || !entry.is_regular_file() || fs::exists(answer)) continue;
      const fs::path part = answer.string() + ".part";
      std::ofstream(part, std::ios::binary) << as_json(model, rule, entry.path().string());
      fs::rename(part, answer);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

#ifdef EDGEKIT_UPDATES
// Answers each picture of a folder with the newest release. It is good once this very process has given the answers of
// its golden set: a board that gets no pictures for weeks keeps it, too.
int watch_newest(const std::string& kit, const Command& command) {
  edgekit::Updates updates(command.state, kit);
  const std::string folder = updates.start();
  if (check(folder, command) != 0) throw std::runtime_error(folder + ": the answers are wrong on this device");
  edgekit::Classifier model(folder, command.options);
  updates.good();
  return watch(model, edgekit::read_contract(folder + "/preprocess.json").rule, command.watched);
}
#endif

int run(const Command& command) {
  const std::string kit = command.kit.empty() ? find_kit() : command.kit;
  if (command.check) return check(kit, command);
#ifdef EDGEKIT_UPDATES
  if (!command.state.empty()) return watch_newest(kit, command);
#endif
  const edgekit::Rule rule = edgekit::read_contract(kit + "/preprocess.json").rule;
  edgekit::Classifier model(kit, command.options);
  if (!command.watched.empty()) return watch(model, rule, command.watched);
  for (const std::string& path : command.pictures) {
    const auto answers = classify(model, rule, path);
    std::cout << path;
    for (std::size_t i = 0; i < answers.size() && i < 3; ++i) {
      char share[32];
      std::snprintf(share, sizeof share, " %.1f %%", 100 * answers[i].probability);
      std::cout << (i > 0 ? ", " : ": ") << answers[i].label << share;
    }
    std::cout << '\n';
  }
  return 0;
}

}  // namespace

int main(int count, char** words) {
  Command command;
  try {
    command = parsed(count, words);
  } catch (const std::exception& error) {
    std::cerr << "classifier: " << error.what() << '\n' << usage;
    return 2;
  }
  try {
    return run(command);
  } catch (const std::exception& error) {
    std::cerr << "classifier: " << error.what() << '\n';
    return 1;
  }
}
