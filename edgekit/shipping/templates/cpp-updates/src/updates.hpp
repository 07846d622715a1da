// Takes new models from the release folder that updates.json names, and keeps them only if they are right here.
//
//     #include "classifier.hpp"
//     #include "updates.hpp"
//     edgekit::Updates updates("/var/lib/my_app/model", "kit");       // a folder of this program alone; the kit
//     edgekit::Classifier model(updates.start());                     // the newest release here, or the kit's own model
//     auto answers = model.classify(pixels, length, width, height);
//     updates.good();                                                 // without it, the second start is the last
//     edgekit::Outcome outcome = updates.check();                     // in the background: for the next start
//
// The release folder is a TUF repository (theupdateframework.io): nothing is parsed before its signatures are verified,
// and neither the web server nor the network can bring in another model, an old one, or half of one. Needs OpenSSL's
// libcrypto, 1.1 or 3, and libcurl. An object is for one thread at a time; other objects and programs may have the same
// folder. Made by edgekit.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <ctime>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "files.hpp"
#include "http.hpp"
#include "metadata.hpp"
#include "selftest.hpp"
#include "state.hpp"

namespace edgekit {

// Answer of a check. state:
//   current      nothing to do; `reason` says why a release was not for this device
//   updated      the next start uses `release`; "" is the kit's own model
//   refused      something is wrong with what was published, or it failed its self-test here; nothing changed
//   unreachable  the network, the server or the disk failed; nothing changed
//   busy         another check is running
struct Outcome {
  std::string state, release, reason;
};

// How updates are taken; all of it may be left out.
struct UpdateOptions {
  int app = 0;               // version of your program; releases may ask for a least one
  std::string url, channel;  // instead of those of updates.json
  std::string classifier;    // for the self-test: the kit's program; default: beside this program, or in kit/build
  bool gpu = false;          // the self-test runs on LiteRT's GPU: as the program does
  std::function<std::string(const std::string& folder)> test;  // instead of it: returns what is wrong, "" for nothing
  double timeout = 15;       // seconds without a byte
  double test_seconds = 0;   // that the self-test may take; 0: 300, and 3,600 where it builds an engine
  std::function<bool()> stop;  // asked all the time during a check; true ends it, such as when the program does
};

class Updates {
 public:
  // state: folder for releases and what is known of them. kit: folder with the program's own model, updates.json and
  // root.json. Throws std::runtime_error if the kit takes no updates.
  Updates(const std::string& state, std::string kit, UpdateOptions options = {})
      : kit_(std::move(kit)), options_(with_defaults(std::move(options), kit_)), folder_(state, options_.built) {}

  // Returns the folder of the model to use now. Call it once a start: a release that is new counts its starts.
  std::string start() {
    State state;
    try {
      state = folder_.change([&](State& now) {
        if (now.trying && now.starts >= 2) {
          now.bar(now.active);
          now.fall_back();
        }
        while (!now.active.empty() && !is_whole(folder_.release(now.active))) {  // a power cut: it can come again
          remove_folder(folder_.release(now.active));
          now.fall_back();
        }
        if (now.trying) ++now.starts;
      });
    } catch (const std::system_error&) {  // it cannot be saved: then starts cannot be counted, and nothing is tried
      state = folder_.read();
      if (state.trying) state.fall_back();
      if (!state.active.empty() && !is_whole(folder_.release(state.active))) state.active = "";
    }
    started_ = state.active;
    return started_.empty() ? kit_ : folder_.release(started_).string();
  }

  // Returns the release that the last start uses; "" is the kit's own model.
  const std::string& started() const { return started_; }

  // Says that the model gave a good answer: a release that was tried stays.
  void good() {
    try {
      folder_.change([](State& now) {
        if (now.starts == 0) return;  // the answer is of the model before
        now.trying = false;
        now.starts = 0;
      });
    } catch (const std::system_error&) {  // then it counts as a start without a good answer
    }
  }

  // Takes the release that is meant for this device, if it is not here yet. It throws nothing because of the network,
  // the server or the files, but takes a while. now: seconds since 1970.
  Outcome check(std::int64_t now = std::time(nullptr)) {
    try {
      Handle lock = folder_.update_lock();
      if (!lock.lock(false)) return {"busy", "", "another check is running"};
      return checked(now);
    } catch (const Refused& why) {
      return {"refused", "", why.what()};
    } catch (const std::system_error& error) {
      return {"unreachable", "", (is_full(error) ? "no space: " : "") + std::string(error.what())};
    } catch (const std::exception& error) {
      return {"unreachable", "", error.what()};
    }
  }

 private:
  // How updates are taken, with what updates.json says.
  struct Settings : UpdateOptions {
    std::string kind, built;  // of kit, such as cpp-litert; the hash of its model
    std::int64_t contract = 0;
  };

  // How metadata names other metadata.
  struct Described {
    std::int64_t version, length;
    std::string sha256;
  };

  // A file of a release, and where it lies in the release folder.
  struct Published {
    Wanted wanted;
    std::string path;
  };

  // The release that this device takes; id "" is none. reason: why it takes no other.
  struct Choice {
    std::string id, reason;
    std::map<std::string, Published> files;  // by name
    std::set<std::string> recalled;
  };

  static constexpr int most_roots = 256;  // new ones, in one check
  static constexpr std::int64_t most_small = 1 << 16, most_targets = 8 << 20, most_release = std::int64_t{2} << 30;
  static constexpr std::size_t most_files = 256;  // of a release

  static Settings with_defaults(UpdateOptions options, const std::string& kit) {
    const std::string path = kit + "/updates.json";
    if (!std::filesystem::exists(path)) throw std::runtime_error(kit + " takes no updates: it has no updates.json");
    const Json document = Json::parse(read_bytes(path));
    Settings made{std::move(options), document["kit"].text(), document["built"].text(),
                  static_cast<std::int64_t>(document["contract"].number())};
    if (made.url.empty()) made.url = document["url"].text();
    if (made.channel.empty()) made.channel = document["channel"].text();
    if (made.url.compare(0, 7, "http://") != 0 && made.url.compare(0, 8, "https://") != 0) {
      throw std::runtime_error(made.url + " is no address of a website");
    }
    const bool builds_engine = made.kind == "cpp-tensorrt";
    if (made.test_seconds <= 0) made.test_seconds = builds_engine ? 3600 : 300;
    if (made.classifier.empty()) {
      made.classifier = (std::filesystem::canonical("/proc/self/exe").parent_path() / "classifier").string();
      if (!std::filesystem::exists(made.classifier)) made.classifier = kit + "/build/classifier";
    }
    return made;
  }

  static bool is_full(const std::system_error& error) {
    const int number = error.code().value();
    return number == ENOSPC || number == EDQUOT || number == EFBIG;
  }

  // Does what reads a file, and tells of which file it is that something is wrong with.
  template <class Work>
  static auto in_file(const std::string& name, Work work) {
    try {
      return work();
    } catch (const Damaged& why) {
      throw Refused(name + ": " + why.what());
    }
  }

  // Fetches a file. Returns its status; the bytes are only of status 200.
  static long fetch(Http& http, const std::string& path, std::int64_t most, const std::string& name, std::string& bytes) {
    const auto take = [&](const char* piece, std::size_t length) { bytes.append(piece, length); };
    return http.fetch(path, most, 0, name, take);
  }

  // Fetches a file that must be there.
  static std::string fetched(Http& http, const std::string& path, std::int64_t most, const std::string& name) {
    std::string bytes;
    const long status = fetch(http, path, most, name, bytes);
    if (status != 200) throw Unreachable(name + ": HTTP status " + std::to_string(status));
    return bytes;
  }

  Outcome checked(std::int64_t now) {
    Http http(options_.url, options_.timeout, options_.stop);
    const std::int64_t clock = std::max(now, folder_.read().clock);
    const Root root = newest_root(http, clock);
    State seen = folder_.read();
    const auto forget = [keys = root.signers()](State& state) {  // the high numbers of a thief do not stay
      if (state.keys != keys) state.timestamp = state.snapshot = state.targets = 0;
      state.keys = keys;
    };
    forget(seen);
    const std::string file = fetched(http, "timestamp.json", most_small, "timestamp.json");
    const auto [version, snapshot] = in_file("timestamp.json", [&] {
      const Value timestamp = verified(file, root, "timestamp");
      check_fresh(timestamp, clock);
      const Described named = described(timestamp["meta"]["snapshot.json"], most_small);
      if (timestamp["version"].number() < seen.timestamp || named.version < seen.snapshot) {
        throw Damaged("older than the last one");
      }
      return std::pair(timestamp["version"].number(), named);
    });
    seen = folder_.change([&, newest = version](State& state) {
      forget(state);
      state.timestamp = newest;
    });
    const std::string settled = std::to_string(snapshot.version) + " " + std::to_string(options_.app) + " " +
                                options_.channel + " " + options_.built;
    if (seen.settled == settled) return {"current", seen.active, ""};
    const Described named = described_by_snapshot(http, root, snapshot, seen, clock);
    const Value targets = named_file(http, root, "targets", named, clock);
    seen = folder_.change([&](State& state) {
      state.targets = named.version;
      state.clock = std::max(state.clock, clock);
    });
    const Choice choice = in_file("targets.json", [&] { return chosen(targets, seen); });
    const Outcome outcome = take(http, choice, seen);
    folder_.change([&](State& state) {
      if (state.barred == seen.barred) state.settled = settled;  // else a start has just left a release
    });
    return outcome;
  }

  // Returns the root of now, reached step by step from the one that is trusted.
  Root newest_root(Http& http, std::int64_t clock) {
    Root root = in_file("root.json", [&] { return trusted_root(read_bytes(kit_ + "/root.json")); });
    try {
      const Root kept = trusted_root(read_bytes(folder_.root().string()));
      if (kept.version > root.version) root = kept;
    } catch (const std::runtime_error&) {  // there is none yet, or it is damaged
    }
    for (int turn = 0; turn < most_roots; ++turn) {
      const std::string name = std::to_string(root.version + 1) + ".root.json";
      std::string file;
      if (fetch(http, name, most_small, name, file) != 200) break;
      const Root next = in_file(name, [&] {
        const Root found = root_of(verified(file, root, "root"));
        check_signatures(taken_apart(file), found, "root");
        if (found.version != root.version + 1) throw Damaged("another version");
        return found;
      });
      save(folder_.root(), file);
      root = next;
    }
    if (root.expires <= clock) throw Refused("root.json: expired");
    return root;
  }

  static Described described(const Value& meta, std::int64_t most) {
    const Value* length = meta.find("length");
    const Value* hashes = meta.find("hashes");
    Described made{meta["version"].number(1), length ? std::min(length->number(), most) : most, ""};
    if (hashes != nullptr) made.sha256 = (*hashes)["sha256"].text();
    return made;
  }

  // Refuses what has expired, and remembers that it is so late: a clock that is set back does not revive it. A clock
  // that was ahead for a while stops updates at most until the next file is published.
  void check_fresh(const Value& document, std::int64_t clock) {
    const std::int64_t expires = seconds_of(document["expires"].text());
    if (expires > clock) return;
    folder_.change([&](State& state) { state.clock = std::max(state.clock, expires); });
    throw Damaged("expired");
  }

  // Returns metadata that other metadata names.
  Value named_file(Http& http, const Root& root, const std::string& role, const Described& named, std::int64_t clock) {
    const std::string name = role + ".json";
    const std::string file = fetched(http, std::to_string(named.version) + "." + name, named.length, name);
    return in_file(name, [&] {
      if (!named.sha256.empty() && hash_of(file) != named.sha256) throw Damaged("not the file that was published");
      Value document = verified(file, root, role);
      if (document["version"].number() != named.version) throw Damaged("another version");
      check_fresh(document, clock);
      return document;
    });
  }

  // Returns how the snapshot names targets.json.
  Described described_by_snapshot(Http& http, const Root& root, const Described& snapshot, const State& seen,
                                  std::int64_t clock) {
    const Value document = named_file(http, root, "snapshot", snapshot, clock);
    const Described named = in_file("snapshot.json", [&] {
      const Described found = described(document["meta"]["targets.json"], most_targets);
      if (found.version < seen.targets) throw Damaged("older than the last one");
      return found;
    });
    folder_.change([&](State& state) { state.snapshot = snapshot.version; });
    return named;
  }

  // Returns which release this device takes.
  Choice chosen(const Value& targets, const State& state) const {
    const Value& published = targets["x-edgekit"];
    if (published["schema"].number() != 1) throw Damaged("made by a newer edgekit");
    const Value* channel = published["channels"].find(options_.channel);
    if (channel == nullptr) throw Refused("there is no channel " + options_.channel);
    Choice choice;
    for (const Value& each : published["recalled"].items()) choice.recalled.insert(each.text());
    const std::string newest = (*channel)["release"].text(), before = (*channel)["previous"].text();
    if (!is_id(newest) || !(before.empty() || is_id(before))) throw Damaged("a release has no valid id");
    const auto place = std::stoul(hash_of(newest + "\n" + state.id).substr(0, 8), nullptr, 16) % 10'000;
    std::vector<std::string> candidates;
    if (static_cast<std::int64_t>(place) < (*channel)["rollout"].number()) candidates.push_back(newest);
    if (!before.empty()) candidates.push_back(before);
    for (const std::string& id : candidates) {
      const Value* release = published["releases"].find(id);
      const std::string reason = choice.recalled.count(id) > 0 ? "was recalled"
                                 : state.is_barred(id)         ? "failed here before"
                                 : release == nullptr          ? "is not described"
                                                               : why_not_here(*release);
      if (reason.empty()) {
        choice.id = id;
        choice.files = files_of(targets["targets"], (*release)["kits"][options_.kind]);
        return choice;
      }
      choice.reason += (choice.reason.empty() ? "" : "; ") + id + " " + reason;
    }
    return choice;
  }

  // Returns why a release is not for this kit; "" if it is.
  std::string why_not_here(const Value& release) const {
    const std::int64_t app = release["app"].number(), contract = release["contract"].number();
    if (release["kits"].find(options_.kind) == nullptr) return "is not for " + options_.kind;
    if (app > options_.app) return "needs version " + std::to_string(app) + " of the app";
    if (contract > options_.contract) return "needs contract " + std::to_string(contract);
    return "";
  }

  // Returns the files of a release: their names lead nowhere but into its folder.
  static std::map<std::string, Published> files_of(const Value& targets, const Value& kit) {
    std::map<std::string, Published> made;
    if (kit.entries().empty() || kit.entries().size() > most_files) throw Damaged("a release has no or too many files");
    for (const auto& [name, target] : kit.entries()) {
      const std::string& path = target.text();
      const std::string folder = path.substr(0, 16), file = path.size() > 17 ? path.substr(17) : "";
      const bool leads_in = is_name(name) && name != "files.json" && is_hex(folder, 16) && path[16] == '/';
      if (!leads_in || !is_word(file, 100, "._-", true)) throw Damaged("a file has no valid name");
      const Value& entry = targets[path];
      const std::string& sha256 = entry["hashes"]["sha256"].text();
      if (!is_hex(sha256, 64)) throw Damaged("a hash is none");
      made[name] = {{entry["length"].number(), sha256}, "targets/" + folder + "/" + sha256 + "." + file};
    }
    return made;
  }

  Outcome take(Http& http, const Choice& choice, const State& seen) {
    if (choice.id.empty()) {
      const bool recalled = choice.recalled.count(seen.active) > 0;
      if (seen.active.empty() || !(recalled || seen.is_barred(seen.active))) {
        return {"current", seen.active, choice.reason};
      }
      return leave(choice.recalled, seen.active, recalled ? " was recalled" : " failed here before");
    }
    if (choice.id == seen.active) return {"current", choice.id, choice.reason};
    if (!options_.test && access(options_.classifier.c_str(), X_OK) != 0) {
      throw Refused("self-test: there is no program " + options_.classifier);
    }
    download(http, choice, seen);
    test(choice.id);
    const State state = folder_.change([&](State& now) {
      now.testing = "";
      now.tests = 0;
      if (now.active == choice.id) return;  // a start has just gone back to it
      if (choice.recalled.count(now.active) > 0) {
        now.previous = "";
      } else if (!now.active.empty() && !now.trying) {
        now.previous = now.active;
      }
      now.active = choice.id;
      now.trying = true;
      now.starts = 0;
    });
    for (const auto& entry : std::filesystem::directory_iterator(folder_.releases())) {
      const std::string name = entry.path().filename().string();
      if (name != state.active && name != state.previous) remove_folder(entry.path());
    }
    return {"updated", choice.id, choice.reason};
  }

  // Leaves a release for the one before, or for the kit's own model.
  Outcome leave(const std::set<std::string>& recalled, const std::string& id, const std::string& reason) {
    const State state = folder_.change([&](State& now) {
      if (now.active != id) return;  // a start has just left it
      if (recalled.count(now.previous) > 0 || now.is_barred(now.previous)) now.previous = "";
      if (!now.previous.empty() && !is_whole(folder_.release(now.previous))) now.previous = "";
      now.fall_back();
    });
    return {"updated", state.active, id + reason};
  }

  // Writes the files of a release into a folder beside the others, which appears whole.
  void download(Http& http, const Choice& choice, const State& seen) {
    namespace fs = std::filesystem;
    const fs::path folder = folder_.release(choice.id), part = folder_.part(choice.id);
    Files files;
    std::int64_t total = 0;
    for (const auto& [name, file] : choice.files) {
      files[name] = file.wanted;
      total = std::min(total + file.wanted.length, most_release + 1);
    }
    if (total > most_release) throw Refused(choice.id + " has more than " + std::to_string(most_release) + " bytes");
    for (const auto& entry : fs::directory_iterator(folder_.releases())) {
      const std::string name = entry.path().filename().string();
      if (name.compare(0, 1, ".") == 0 && entry.path() != part) remove_folder(entry.path());
    }
    if (is_whole(folder) && read_bytes((folder / "files.json").string()) == to_text(files)) return;
    try {
      std::set<fs::path> folders = {part};
      for (const auto& [name, file] : choice.files) {
        fs::create_directories((part / name).parent_path());
        for (fs::path each = (part / name).parent_path(); each != part; each = each.parent_path()) folders.insert(each);
        if (!file.wanted.is(part / name) && !is_copied(file.wanted, part / name, seen)) load(http, name, file, part);
      }
      save(part / "files.json", to_text(files));
      for (const fs::path& each : folders) sync_folder(each);
      remove_folder(folder);
      fs::rename(part, folder);
      sync_folder(folder_.releases());
    } catch (const std::system_error& error) {
      if (is_full(error)) remove_folder(part);
      throw;
    }
  }

  // Copies a file that is here already, under any name. Returns whether there is one.
  bool is_copied(const Wanted& wanted, const std::filesystem::path& path, const State& seen) const {
    namespace fs = std::filesystem;
    for (const fs::path& folder : {fs::path(kit_), folder_.release(seen.active), folder_.release(seen.previous)}) {
      for (const fs::path& place : {folder, folder / "golden"}) {
        std::error_code none;
        for (const auto& entry : fs::directory_iterator(place, none)) {
          if (!wanted.is(entry.path())) continue;
          fs::copy_file(entry.path(), path, fs::copy_options::overwrite_existing);
          Handle(path, O_RDONLY).sync();
          if (wanted.is(path)) return true;
        }
      }
    }
    return false;
  }

  // Fetches a file of a release.
  static void load(Http& http, const std::string& name, const Published& file, const std::filesystem::path& part) {
    Handle made(part / name, O_WRONLY | O_CREAT | O_TRUNC);
    Sha256 hash;
    std::int64_t taken = 0;
    const auto take = [&](const char* bytes, std::size_t length) {
      made.write(bytes, length);
      hash.add(bytes, length);
      taken += static_cast<std::int64_t>(length);
    };
    const long status = http.fetch(file.path, file.wanted.length, file.wanted.length, name, take);
    if (status != 200) throw Unreachable(name + ": HTTP status " + std::to_string(status));
    if (taken != file.wanted.length || hash.digits() != file.wanted.sha256) {
      throw Refused(name + ": not the file that was released");
    }
    made.sync();
  }

  // Tests a release on this device. One that fails, or twice ends the device or this program, is barred.
  void test(const std::string& id) {
    const State state = folder_.change([&](State& now) {
      now.tests = now.testing == id ? now.tests + 1 : 1;
      now.testing = id;
    });
    std::string problem = "it crashed or hung";
    if (state.tests <= 2) {
      const auto forget = [&] {
        folder_.change([](State& now) {
          now.testing = "";
          now.tests = 0;
        });
      };
      try {
        problem = problem_of(folder_.release(id).string());
      } catch (const Unreachable&) {  // which says nothing of the release; nor does a machine that starts no program
        forget();
        throw;
      } catch (const std::system_error&) {
        forget();
        throw;
      } catch (const std::exception& error) {
        problem = error.what();
      }
    }
    if (problem.empty()) return;
    folder_.change([&](State& now) {
      now.bar(id);
      if (now.previous == id) now.previous = "";
    });
    remove_folder(folder_.release(id));
    throw Refused("self-test: " + problem);
  }

  // Returns what the self-test finds wrong with a release; "" for nothing.
  std::string problem_of(const std::string& folder) const {
    if (options_.test) return options_.test(folder);
    return test_by_golden_set(options_.classifier, options_.gpu, folder, options_.test_seconds, options_.stop);
  }

  std::string kit_;
  Settings options_;
  StateFolder folder_;
  std::string started_;
};

}  // namespace edgekit
