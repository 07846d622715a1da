// Tests a release on this device, in a process of its own, which may crash or hang.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <functional>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "files.hpp"
#include "http.hpp"

namespace edgekit {

// How a program ended, and the end of what it said on both outputs.
struct Ended {
  bool in_time = false;
  int status = 0;  // as waitpid gives it
  std::string said;

  bool is_success() const { return in_time && WIFEXITED(status) && WEXITSTATUS(status) == 0; }
};

// Runs a program, and ends everything that it starts after so many seconds at most. stop: asked all the time; true ends
// it with Unreachable.
inline Ended run_program(const std::vector<std::string>& command, double seconds, const std::function<bool()>& stop) {
  constexpr std::size_t most_said = 1 << 20;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw std::system_error(errno, std::generic_category(), command[0]);
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  const pid_t parent = getpid(), child = fork();
  if (child == 0) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // it does not outlive the program that waits for it
    if (getppid() != parent) _exit(127);
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    execv(words[0], words.data());
    _exit(127);
  }
  const int problem = errno;
  close(ends[1]);
  if (child < 0) {
    close(ends[0]);
    throw std::system_error(problem, std::generic_category(), command[0]);
  }
  setpgid(child, child);  // here, too: whichever comes first
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  Ended found;
  bool stopped = false, has_ended = false;
  while (!has_ended && !stopped && std::chrono::steady_clock::now() < end) {
    pollfd waiting{ends[0], POLLIN, 0};
    poll(&waiting, 1, 50);
    has_ended = waitpid(child, &found.status, WNOHANG) == child;  // before the last words are read
    char piece[4096];
    for (ssize_t length; (length = read(ends[0], piece, sizeof piece)) > 0;) {
      found.said.append(piece, static_cast<std::size_t>(length));
      if (found.said.size() > 2 * most_said) found.said.erase(0, found.said.size() - most_said);
    }
    if (!has_ended && (waiting.revents & POLLHUP) != 0) usleep(1000);  // it has closed its outputs, and goes on
    const int signal = has_ended && WIFSIGNALED(found.status) ? WTERMSIG(found.status) : 0;
    stopped = signal == SIGTERM || signal == SIGINT || (stop && stop());  // somebody ends this service, not the model
  }
  found.in_time = has_ended;
  kill(-child, SIGKILL);
  if (!has_ended) waitpid(child, &found.status, 0);
  close(ends[0]);
  if (stopped) throw Unreachable("stopped");
  return found;
}

// Returns the last line that is not empty.
inline std::string last_line(const std::string& text) {
  std::istringstream stream(text);
  std::string found;
  for (std::string line; std::getline(stream, line);) {
    if (line.find_first_not_of(" \t\r") != std::string::npos) found = line;
  }
  return found;
}

// Returns why a program that ended was no success.
inline std::string why_not(const Ended& ended, double seconds) {
  char text[64];
  std::snprintf(text, sizeof text, "it took more than %g s", seconds);
  if (!ended.in_time) return text;
  if (WIFSIGNALED(ended.status)) return "it crashed: signal " + std::to_string(WTERMSIG(ended.status));
  const std::string line = last_line(ended.said).substr(0, 300);
  return line.empty() ? "exit status " + std::to_string(WEXITSTATUS(ended.status)) : line;
}

// Returns what a program that is called with a release's folder finds wrong with it; "" for nothing.
inline std::string test_by_program(const std::string& program, const std::string& folder, double seconds,
                                   const std::function<bool()>& stop) {
  const Ended ended = run_program({program, folder}, seconds, stop);
  return ended.is_success() ? "" : why_not(ended, seconds);
}

// Returns what the kit's own program finds wrong with a release: it compares it with its golden set, on the processor
// that it always uses; "" for nothing. Throws Unreachable if that says nothing of the release.
inline std::string test_by_golden_set(const std::string& classifier, bool gpu, const std::string& folder,
                                      double seconds, const std::function<bool()>& stop) {
  std::vector<std::string> command = {classifier, "--check", "--json", "--kit", folder};
  if (gpu) command.push_back("--gpu");
  const Ended ended = run_program(command, seconds, stop);
  const std::string line = last_line(ended.said);
  if (!ended.in_time || WIFSIGNALED(ended.status) || line.compare(0, 1, "[") != 0) {
    const std::string why = why_not(ended, seconds);
    // An engine that finds no room says nothing of the model.
    if (why.find(" cannot be written") != std::string::npos) throw Unreachable("self-test: " + why);
    return why;
  }
  const Json levels = Json::parse(line);
  for (const Json& level : levels.items()) {
    const auto& problems = level["problems"].items();
    const std::string cause = level["cause"].text();
    if (!problems.empty()) return level["level"].text() + ": " + (cause.empty() ? problems[0].text() : cause);
  }
  for (const Json& level : levels.items()) {
    if (level["level"].text() != "tensor to scores" || level["checked"].number() > 0) continue;
    throw Unreachable("self-test: the model was not run: " + level["skipped"].text());
  }
  return ended.is_success() ? "" : why_not(ended, seconds);
}

}  // namespace edgekit
