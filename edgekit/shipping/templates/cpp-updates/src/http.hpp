// Fetches files of a release folder over HTTP, with libcurl: no redirects, nothing identifying, never more than allowed.
#pragma once

#include <curl/curl.h>

#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <ctime>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "metadata.hpp"

namespace edgekit {

// The network or the server failed, or time ran out: nothing has changed, and the next check may do.
class Unreachable : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Keeps the signal SIGPIPE, which older libcurl can cause when a server hangs up, from ending the program of this thread.
class WithoutPipeSignal {
 public:
  WithoutPipeSignal() {
    sigset_t waiting;
    sigpending(&waiting);
    was_waiting_ = sigismember(&waiting, SIGPIPE) == 1;
    sigemptyset(&own_);
    sigaddset(&own_, SIGPIPE);
    sigprocmask(SIG_BLOCK, &own_, &before_);  // on Linux, of this thread
  }
  WithoutPipeSignal(const WithoutPipeSignal&) = delete;
  WithoutPipeSignal& operator=(const WithoutPipeSignal&) = delete;
  ~WithoutPipeSignal() {
    const timespec none{};
    while (!was_waiting_ && sigtimedwait(&own_, nullptr, &none) < 0 && errno == EINTR) continue;
    sigprocmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t own_, before_;
  bool was_waiting_ = false;
};

class Http {
 public:
  using Sink = std::function<void(const char* bytes, std::size_t length)>;

  // timeout: seconds without a byte. stop: asked all the time; true ends the transfer.
  Http(std::string url, double timeout, std::function<bool()> stop)
      : url_(std::move(url)), timeout_(timeout), stop_(std::move(stop)), curl_(started(), curl_easy_cleanup) {
    if (!curl_) throw std::runtime_error("libcurl cannot be started");
    while (!url_.empty() && url_.back() == '/') url_.pop_back();
  }

  // Fetches a file. most: bytes; length: that it will have, for its time; name: of the file, for messages. Returns the
  // status 200, 403, 404 or 410; throws Unreachable for others, Refused if it is longer.
  long fetch(const std::string& path, std::int64_t most, std::int64_t length, const std::string& name, Sink sink) {
    Transfer transfer{this, std::move(sink), most, 0, false, nullptr};
    char words[CURL_ERROR_SIZE] = "";
    const auto set = [&](CURLoption option, auto value) { curl_easy_setopt(curl_.get(), option, value); };
    set(CURLOPT_URL, (url_ + "/" + path).c_str());
#if LIBCURL_VERSION_NUM >= 0x075500
    set(CURLOPT_PROTOCOLS_STR, "http,https");
#else
    set(CURLOPT_PROTOCOLS, static_cast<long>(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_ERRORBUFFER, static_cast<char*>(words));
    const double whole = 4 * timeout_ + static_cast<double>(length) / 10'000;  // 60 s and 1 s for each 10 kB
    set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(timeout_ * 1000));
    set(CURLOPT_TIMEOUT_MS, static_cast<long>(whole * 1000));
    set(CURLOPT_LOW_SPEED_LIMIT, 1L);
    set(CURLOPT_LOW_SPEED_TIME, static_cast<long>(std::ceil(timeout_)));
    set(CURLOPT_WRITEFUNCTION, &Http::write);
    set(CURLOPT_WRITEDATA, static_cast<void*>(&transfer));
    set(CURLOPT_NOPROGRESS, 0L);
    set(CURLOPT_XFERINFOFUNCTION, &Http::is_stopped);
    set(CURLOPT_XFERINFODATA, static_cast<void*>(this));
    const WithoutPipeSignal guard;
    const CURLcode code = curl_easy_perform(curl_.get());
    set(CURLOPT_ERRORBUFFER, static_cast<char*>(nullptr));
    if (transfer.problem) std::rethrow_exception(transfer.problem);
    if (code == CURLE_ABORTED_BY_CALLBACK) throw Unreachable("stopped");
    const long status = transfer.status();
    if (status >= 300 && status < 400) throw Unreachable(name + ": redirect");
    const bool is_answer = status == 200 || status == 403 || status == 404 || status == 410;
    if (status >= 100 && !is_answer) throw Unreachable(name + ": HTTP status " + std::to_string(status));
    if (transfer.too_long) throw Refused(name + ": longer than it may be");
    const bool is_whole = code == CURLE_OK || (status != 200 && is_answer);  // the text of an error does not count
    if (!is_whole) throw Unreachable(name + ": " + (words[0] != '\0' ? words : curl_easy_strerror(code)));
    return status;
  }

 private:
  struct Transfer {
    Http* http;
    Sink sink;
    std::int64_t most, taken;
    bool too_long;
    std::exception_ptr problem;

    long status() const {
      long found = 0;
      curl_easy_getinfo(http->curl_.get(), CURLINFO_RESPONSE_CODE, &found);
      return found;
    }
  };

  static CURL* started() {
    static const CURLcode global = curl_global_init(CURL_GLOBAL_DEFAULT);
    return global == CURLE_OK ? curl_easy_init() : nullptr;
  }

  // Takes bytes of an answer; libcurl ends the transfer if others are returned than came.
  static std::size_t write(char* bytes, std::size_t one, std::size_t count, void* given) noexcept {
    Transfer& transfer = *static_cast<Transfer*>(given);
    const std::size_t length = one * count;
    if (transfer.status() != 200) return 0;
    transfer.taken += static_cast<std::int64_t>(length);
    transfer.too_long = transfer.taken > transfer.most;
    if (transfer.too_long) return 0;
    try {
      transfer.sink(bytes, length);
    } catch (...) {
      transfer.problem = std::current_exception();
      return 0;
    }
    return length;
  }

  static int is_stopped(void* given, curl_off_t, curl_off_t, curl_off_t, curl_off_t) noexcept {
    const Http& http = *static_cast<Http*>(given);
    return http.stop_ && http.stop_() ? 1 : 0;
  }

  std::string url_;
  double timeout_;
  std::function<bool()> stop_;
  std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl_;
};

}  // namespace edgekit
