// Takes new models on a board: `updates` alone shows how it is called. A line of JSON tells what each command did.
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <filesystem>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "updates.hpp"

namespace {

namespace fs = std::filesystem;

constexpr const char* usage =
    "updates --state DIR check      take a new release, if there is one, and test it on this machine\n"
    "updates --state DIR start      print the folder of the model to use now; counts as a start\n"
    "updates --state DIR good       the model gave a good answer\n"
    "  --state DIR                  folder for releases, of one program alone\n"
    "  --kit FOLDER                 with the program's own model; default: the one around this program\n"
    "  --url URL, --channel NAME    of the release folder; default: those of updates.json\n"
    "  --app N                      version of the program; default: 0\n"
    "  --gpu                        LiteRT: test on the GPU, as the program runs there\n"
    "  --test PROGRAM               for the self-test; default: classifier --check, beside this program\n"
    "  --test-seconds S             that it may take; default: 300, and 3600 where it builds an engine\n"
    "  --timeout S                  without a byte; default: 15\n"
    "  --now S                      seconds since 1970; default: the clock\n";

std::atomic<bool> stopped{false};
static_assert(std::atomic<bool>::is_always_lock_free, "for a signal");

// What the command line asks for.
struct Command {
  std::vector<std::string> actions;
  std::string kit, state, test;
  std::int64_t now = -1;  // the clock
  edgekit::UpdateOptions options;
};

// Returns the folder of this program, or one above it, that takes updates.
std::string find_kit() {
  for (fs::path folder = fs::canonical("/proc/self/exe").parent_path();; folder = folder.parent_path()) {
    if (fs::is_regular_file(folder / "updates.json")) return folder.string();
    if (folder == folder.parent_path()) throw std::runtime_error("no kit is around this program: name it with --kit");
  }
}

double to_seconds(const std::string& word, const std::string& text) {
  const double found = edgekit::to_number(text);
  if (found < 0 || text.find_first_not_of("0123456789.") != std::string::npos) {
    throw std::invalid_argument(word + " needs a number that is not below 0");
  }
  return found;
}

Command parsed(int count, char** words) {
  Command command;
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    const auto next = [&] {
      if (i + 1 == count) throw std::invalid_argument(word + " needs a value");
      return std::string(words[++i]);
    };
    if (word == "--kit") {
      command.kit = next();
    } else if (word == "--state") {
      command.state = next();
    } else if (word == "--url") {
      command.options.url = next();
    } else if (word == "--channel") {
      command.options.channel = next();
    } else if (word == "--app") {
      command.options.app = static_cast<int>(to_seconds(word, next()));
    } else if (word == "--gpu") {
      command.options.gpu = true;
    } else if (word == "--test") {
      command.test = next();
    } else if (word == "--test-seconds") {
      command.options.test_seconds = to_seconds(word, next());
    } else if (word == "--timeout") {
      command.options.timeout = to_seconds(word, next());
    } else if (word == "--now") {
      command.now = static_cast<std::int64_t>(to_seconds(word, next()));
    } else if (word == "check" || word == "start" || word == "good") {
      command.actions.push_back(word);
    } else {
      throw std::invalid_argument("unknown: " + word);
    }
  }
  if (command.actions.empty()) throw std::invalid_argument("name check, start or good");
  if (command.state.empty()) throw std::invalid_argument("--state is missing");
  return command;
}

void run(const Command& command) {
  edgekit::UpdateOptions options = command.options;
  options.stop = [] { return stopped.load(); };
  if (!command.test.empty()) {
    const double seconds = options.test_seconds > 0 ? options.test_seconds : 300;
    options.test = [program = command.test, seconds, stop = options.stop](const std::string& folder) {
      return edgekit::test_by_program(program, folder, seconds, stop);
    };
  }
  edgekit::Updates updates(command.state, command.kit.empty() ? find_kit() : command.kit, options);
  for (const std::string& action : command.actions) {
    std::string more;
    if (action == "check") {
      const auto found = updates.check(command.now < 0 ? std::time(nullptr) : command.now);
      more = ", \"state\": " + edgekit::quoted(found.state) + ", \"release\": " + edgekit::quoted(found.release) +
             ", \"reason\": " + edgekit::quoted(found.reason);
    } else if (action == "start") {
      const std::string folder = updates.start();
      more = ", \"release\": " + edgekit::quoted(updates.started()) + ", \"folder\": " + edgekit::quoted(folder);
    } else {
      updates.good();
    }
    std::cout << "{\"did\": " << edgekit::quoted(action) << more << "}" << std::endl;
  }
}

}  // namespace

int main(int count, char** words) {
  Command command;
  try {
    command = parsed(count, words);
  } catch (const std::exception& error) {
    std::cerr << "updates: " << error.what() << '\n' << usage;
    return 2;
  }
  for (const int signal : {SIGTERM, SIGINT}) std::signal(signal, [](int) { stopped = true; });
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error, and no end
  try {
    run(command);
  } catch (const std::exception& error) {
    std::cerr << "updates: " << error.what() << '\n';
    return 2;
  }
  return 0;
}
