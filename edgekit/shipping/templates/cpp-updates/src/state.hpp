// What is known on this device of releases: state.json, and the folders of the releases, which are whole or not there.
#pragma once

#include <fcntl.h>
#include <openssl/rand.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "files.hpp"
#include "metadata.hpp"

namespace edgekit {

// A file or a folder that is open, and closed at the end. Throws std::system_error if it cannot be opened.
class Handle {
 public:
  Handle(const std::filesystem::path& path, int flags) : path_(path.string()) {
    number_ = open(path_.c_str(), flags | O_CLOEXEC, 0644);
    if (number_ < 0) fail();
  }
  Handle(Handle&& other) noexcept : path_(std::move(other.path_)), number_(std::exchange(other.number_, -1)) {}
  Handle& operator=(Handle&&) = delete;
  ~Handle() {
    if (number_ >= 0) close(number_);
  }

  void write(const char* bytes, std::size_t length) {
    while (length > 0) {
      const ssize_t written = ::write(number_, bytes, length);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail();
      bytes += written;
      length -= static_cast<std::size_t>(written);
    }
  }

  // Waits until it is on the disk, and survives a power cut.
  void sync() {
    if (fsync(number_) != 0) fail();
  }

  // Locks the file until it is closed. Returns whether it could: another one may have it, and `wait` may be false.
  bool lock(bool wait) {
    while (flock(number_, LOCK_EX | (wait ? 0 : LOCK_NB)) != 0) {
      if (errno == EWOULDBLOCK) return false;
      if (errno != EINTR) fail();
    }
    return true;
  }

 private:
  [[noreturn]] void fail() const { throw std::system_error(errno, std::generic_category(), path_); }

  std::string path_;
  int number_ = -1;
};

inline void sync_folder(const std::filesystem::path& folder) { Handle(folder, O_RDONLY | O_DIRECTORY).sync(); }

// Writes a file whole or not at all, even if the power is cut.
inline void save(const std::filesystem::path& path, const std::string& bytes) {
  const std::filesystem::path part = path.string() + ".new";
  try {
    Handle file(part, O_WRONLY | O_CREAT | O_TRUNC);
    file.write(bytes.data(), bytes.size());
    file.sync();
    std::filesystem::rename(part, path);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(part, ignored);
    throw;
  }
  sync_folder(path.parent_path());
}

inline void remove_folder(const std::filesystem::path& folder) {
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
}

// Length and hash that a file of a release must have.
struct Wanted {
  std::int64_t length = 0;
  std::string sha256;

  bool is(const std::filesystem::path& path) const {
    std::error_code error;
    const bool is_file = std::filesystem::is_regular_file(std::filesystem::symlink_status(path, error));
    const auto found = is_file ? std::filesystem::file_size(path, error) : 0;
    return is_file && !error && found == static_cast<std::uintmax_t>(length) && hash_of_file(path.string()) == sha256;
  }
};

using Files = std::map<std::string, Wanted>;  // by name

inline std::string to_text(const Files& files) {
  std::string text;
  for (const auto& [name, file] : files) {
    text += std::string(text.empty() ? "{" : ",") + quoted(name) + ":{\"length\":" + std::to_string(file.length) +
            ",\"sha256\":" + quoted(file.sha256) + "}";
  }
  return text + "}";
}

// Returns whether a folder has every file that its files.json names. Others, such as an engine, do not count.
inline bool is_whole(const std::filesystem::path& folder) {
  try {
    const Value document = Value::parse(read_bytes((folder / "files.json").string()), false);
    for (const auto& [name, file] : document.entries()) {
      if (!is_name(name) || !Wanted{file["length"].number(), file["sha256"].text()}.is(folder / name)) return false;
    }
    return !document.entries().empty();
  } catch (const std::runtime_error&) {
    return false;
  }
}

// What state.json says. active, previous, testing: ids of releases, or "".
struct State {
  std::string built;  // of the kit: another one after an update of the program
  std::string id;     // drawn here, for staged rollouts; never sent
  std::int64_t timestamp = 0, snapshot = 0, targets = 0;  // versions of the metadata that was seen last
  std::string keys;                                       // under which those versions were accepted
  std::int64_t clock = 0;                                 // seconds: it was at least so late
  std::string settled;                                    // what the last whole check saw
  std::string active;                                     // "": the kit's own model
  bool trying = false;
  std::int64_t starts = 0;  // of a release that is being tried
  std::string previous;
  std::vector<std::string> barred;
  std::string testing;
  std::int64_t tests = 0;

  bool is_barred(const std::string& release) const {
    return std::find(barred.begin(), barred.end(), release) != barred.end();
  }

  // Never takes a release again.
  void bar(const std::string& release) {
    if (!is_barred(release)) barred.push_back(release);
    settled = testing = "";
    tests = 0;
  }

  // Uses the release before.
  void fall_back() {
    active = std::exchange(previous, "");
    trying = false;
    starts = 0;
    settled = "";
  }

  std::string to_text() const {
    const auto number = [](std::int64_t value) { return std::to_string(value); };
    std::string ids;
    for (const std::string& each : barred) ids += (ids.empty() ? "" : ", ") + quoted(each);
    return "{\"schema\": 1, \"built\": " + quoted(built) + ", \"id\": " + quoted(id) +
           ", \"timestamp\": " + number(timestamp) + ", \"snapshot\": " + number(snapshot) +
           ", \"targets\": " + number(targets) + ", \"keys\": " + quoted(keys) + ", \"clock\": " + number(clock) +
           ", \"settled\": " + quoted(settled) + ", \"active\": " + quoted(active) +
           ", \"trying\": " + (trying ? "true" : "false") + ", \"starts\": " + number(starts) +
           ", \"previous\": " + quoted(previous) + ", \"barred\": [" + ids + "], \"testing\": " + quoted(testing) +
           ", \"tests\": " + number(tests) + "}\n";
  }

  // Reads a state. Throws Damaged.
  static State of(const std::string& text) {
    const Value document = Value::parse(text, false);
    const auto id_of = [](const Value& value) {
      if (!value.text().empty() && !is_id(value.text())) throw Damaged("no id of a release");
      return value.text();
    };
    if (document["schema"].number() != 1 || !is_hex(document["id"].text(), 32)) throw Damaged("another state");
    State made;
    made.built = document["built"].text();
    made.id = document["id"].text();
    made.timestamp = document["timestamp"].number();
    made.snapshot = document["snapshot"].number();
    made.targets = document["targets"].number();
    made.keys = document["keys"].text();
    made.clock = document["clock"].number();
    made.settled = document["settled"].text();
    made.active = id_of(document["active"]);
    made.trying = document["trying"].boolean();
    made.starts = document["starts"].number();
    made.previous = id_of(document["previous"]);
    for (const Value& each : document["barred"].items()) made.barred.push_back(id_of(each));
    made.testing = id_of(document["testing"]);
    made.tests = document["tests"].number();
    return made;
  }
};

// The folder of the state, of one program alone.
class StateFolder {
 public:
  // built: of the kit.
  StateFolder(std::filesystem::path folder, std::string built) : folder_(std::move(folder)), built_(std::move(built)) {}

  std::filesystem::path root() const { return folder_ / "root.json"; }
  std::filesystem::path releases() const { return folder_ / "releases"; }
  std::filesystem::path release(const std::string& id) const { return releases() / id; }
  std::filesystem::path part(const std::string& id) const { return releases() / ("." + id + ".part"); }

  // Returns the lock of a whole check; whether it is held is for its caller to ask.
  Handle update_lock() const {
    std::filesystem::create_directories(releases());
    return Handle(folder_ / "update.lock", O_RDWR | O_CREAT);
  }

  // Returns the state. A damaged one is a new one: the kit's own model is in use then.
  State read() const {
    State state;
    try {
      state = State::of(read_bytes((folder_ / "state.json").string()));
    } catch (const std::runtime_error&) {
      unsigned char bytes[16];
      if (RAND_bytes(bytes, sizeof bytes) != 1) throw std::runtime_error("OpenSSL gives no random numbers");
      for (const unsigned char byte : bytes) {
        for (const int half : {byte >> 4, byte & 15}) state.id += "0123456789abcdef"[half];
      }
    }
    if (state.built != built_) {  // the program was updated: its own model is newer than what was here
      state.built = built_;
      state.active = state.previous = state.settled = state.testing = "";
      state.trying = false;
      state.starts = state.tests = 0;
    }
    return state;
  }

  // Changes the state while no other program does. Returns the new one. Throws std::system_error if it cannot be saved.
  template <class Change>
  State change(Change change) const {
    std::filesystem::create_directories(releases());
    Handle file(folder_ / "state.lock", O_RDWR | O_CREAT);
    file.lock(true);
    State state = read();
    change(state);
    std::string before;
    try {
      before = read_bytes((folder_ / "state.json").string());
    } catch (const std::runtime_error&) {  // there is none yet
    }
    if (before != state.to_text()) save(folder_ / "state.json", state.to_text());
    return state;
  }

 private:
  std::filesystem::path folder_;
  std::string built_;
};

}  // namespace edgekit
