// Verifies the metadata of a release folder, which is a TUF 1.0 repository, with OpenSSL 1.1 or 3.
//
// A file is taken apart by its fixed form, its signatures are verified over the very bytes that were signed, and only
// then is it parsed, by a parser that takes nothing but what the publisher writes.
#pragma once

#include <openssl/evp.h>
#include <openssl/pem.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace edgekit {

// What the server gave is wrong: the release or its metadata is not taken.
class Refused : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A document is not of the form that it must have.
class Damaged : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// SHA-256, fed piece by piece.
class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) {
      throw std::runtime_error("OpenSSL has no SHA-256");
    }
  }

  void add(const char* bytes, std::size_t length) { EVP_DigestUpdate(context_.get(), bytes, length); }

  // Returns 64 hexadecimal digits. Only once.
  std::string digits() {
    unsigned char found[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    EVP_DigestFinal_ex(context_.get(), found, &length);
    std::string text;
    for (unsigned i = 0; i < length; ++i) {
      for (const int half : {found[i] >> 4, found[i] & 15}) text += "0123456789abcdef"[half];
    }
    return text;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

inline std::string hash_of(const std::string& bytes) {
  Sha256 hash;
  hash.add(bytes.data(), bytes.size());
  return hash.digits();
}

// Returns the SHA-256 of a file; "" if it cannot be read.
inline std::string hash_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file.is_open()) return "";
  Sha256 hash;
  std::vector<char> piece(1 << 16);
  while (file.read(piece.data(), static_cast<std::streamsize>(piece.size())), file.gcount() > 0) {
    hash.add(piece.data(), static_cast<std::size_t>(file.gcount()));
  }
  return file.bad() ? "" : hash.digits();
}

inline bool is_hex(const std::string& text, std::size_t length) {
  return text.size() == length && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// Returns whether a text has 1 to `most` of the letters, digits and these other characters, and begins with a letter,
// a digit or, if it may, with "_".
inline bool is_word(const std::string& text, std::size_t most, const std::string& others, bool may_begin_low) {
  const auto plain = [](char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  const auto inside = [&](char c) { return plain(c) || others.find(c) != std::string::npos; };
  return !text.empty() && text.size() <= most && (plain(text[0]) || (may_begin_low && text[0] == '_')) &&
         std::all_of(text.begin(), text.end(), inside);
}

// Returns whether a text can be the id of a release or a channel.
inline bool is_id(const std::string& text) { return is_word(text, 64, "._-", false); }

// Returns whether a text can be the name of a file of a release: at most four parts with "/" between them.
inline bool is_name(const std::string& text) {
  int parts = 0;
  for (std::size_t start = 0, stop = 0; stop != std::string::npos; start = stop + 1) {
    stop = text.find('/', start);
    if (++parts > 4 || !is_word(text.substr(start, stop - start), 100, "._-", true)) return false;
  }
  return true;
}

// A value of a JSON document. What is not there, or of another type, throws Damaged.
class Value {
 public:
  // Reads a document. strict: only what canonical JSON has, with a newline in a text written \n; otherwise spaces and
  // any order of the names are taken, too, but a name twice never is.
  static Value parse(const std::string& text, bool strict = true);

  // Returns an entry of an object.
  const Value& operator[](const std::string& name) const {
    const Value* found = find(name);
    if (found == nullptr) throw Damaged("there is no \"" + name + "\"");
    return *found;
  }

  // Returns an entry of an object; nullptr if it has none of this name.
  const Value* find(const std::string& name) const {
    const auto found = entries().find(name);
    return found == entries().end() ? nullptr : &found->second;
  }

  const std::map<std::string, Value>& entries() const { return as(Kind::object, "an object").entries_; }
  const std::vector<Value>& items() const { return as(Kind::list, "a list").items_; }
  const std::string& text() const { return as(Kind::text, "a text").text_; }
  bool boolean() const { return as(Kind::boolean, "true or false").number_ != 0; }

  // Returns a whole number, which must be this at least.
  std::int64_t number(std::int64_t least = 0) const {
    if (as(Kind::number, "a number").number_ < least) throw Damaged("a number is too small");
    return number_;
  }

 private:
  friend class ValueParser;
  enum class Kind { null, boolean, number, text, list, object };

  const Value& as(Kind kind, const char* words) const {
    if (kind_ != kind) throw Damaged(std::string("a value is not ") + words);
    return *this;
  }

  Kind kind_ = Kind::null;
  std::int64_t number_ = 0;
  std::string text_;
  std::vector<Value> items_;
  std::map<std::string, Value> entries_;
};

// Reads the values of a document, one after the other.
class ValueParser {
 public:
  ValueParser(const std::string& text, bool strict) : text_(text), strict_(strict) {}

  Value document() {
    Value found = value(1);
    skip();
    need(at_ == text_.size(), "more after the end");
    return found;
  }

 private:
  static constexpr int most_depth = 32, most_digits = 15;

  static void need(bool found, const char* what) {
    if (!found) throw Damaged(std::string("not JSON as the publisher writes it: ") + what);
  }

  // Moves past spaces, where they are allowed.
  void skip() {
    while (!strict_ && at_ < text_.size() && std::string(" \t\r\n").find(text_[at_]) != std::string::npos) ++at_;
  }

  // Moves past a text if it comes next.
  bool take(const std::string& wanted) {
    skip();
    if (text_.compare(at_, wanted.size(), wanted) != 0) return false;
    at_ += wanted.size();
    return true;
  }

  Value value(int depth) {
    need(depth <= most_depth, "too deep");
    Value made;
    if (take("{")) {
      made.kind_ = Value::Kind::object;
      for (bool more = !take("}"); more;) {
        need(take("\""), "a name is missing");
        const std::string name = rest_of_text();
        need(take(":"), "a colon is missing");
        need(!strict_ || made.entries_.empty() || made.entries_.rbegin()->first < name, "names out of order, or twice");
        need(made.entries_.emplace(name, value(depth + 1)).second, "a name twice");
        more = take(",");
        need(more || take("}"), "an object does not end");
      }
    } else if (take("[")) {
      made.kind_ = Value::Kind::list;
      for (bool more = !take("]"); more;) {
        made.items_.push_back(value(depth + 1));
        more = take(",");
        need(more || take("]"), "a list does not end");
      }
    } else if (take("\"")) {
      made.kind_ = Value::Kind::text;
      made.text_ = rest_of_text();
    } else if (take("true") || take("false")) {
      made.kind_ = Value::Kind::boolean;
      made.number_ = text_[at_ - 2] == 'u';
    } else if (!take("null")) {
      made.kind_ = Value::Kind::number;
      made.number_ = number();
    }
    return made;
  }

  std::int64_t number() {
    const bool negative = take("-");
    const std::size_t start = at_;
    std::int64_t found = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      need(at_ - start < most_digits, "a number is too long");
      found = found * 10 + (text_[at_] - '0');
    }
    need(at_ > start, "a value is missing");
    need(text_[start] != '0' || (at_ == start + 1 && !negative), "a number begins with 0");
    return negative ? -found : found;
  }

  // Returns the text up to its closing quote.
  std::string rest_of_text() {
    std::string found;
    while (true) {
      need(at_ < text_.size(), "a text does not end");
      const unsigned char letter = static_cast<unsigned char>(text_[at_]);
      need(letter >= 0x20, "a control character in a text");
      if (letter == '"') {
        ++at_;
        return found;
      }
      if (letter == '\\') {
        const char kind = at_ + 1 < text_.size() ? text_[at_ + 1] : ' ';
        need(kind == 'n' || (!strict_ && (kind == '"' || kind == '\\')), "a backslash");
        found += kind == 'n' ? '\n' : kind;
        at_ += 2;
      } else {
        const std::size_t length = letter_length();
        found.append(text_, at_, length);
        at_ += length;
      }
    }
  }

  // Returns how many bytes the next letter has. Only shortest UTF-8 of letters that there are is taken.
  std::size_t letter_length() const {
    const auto byte = [&](std::size_t i) -> unsigned {
      return at_ + i < text_.size() ? static_cast<unsigned char>(text_[at_ + i]) : 0;
    };
    const unsigned first = byte(0);
    if (first < 0x80) return 1;
    const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    unsigned letter = first & (0xffu >> (length + 1));
    bool valid = first >= 0xc2 && first <= 0xf4;
    for (std::size_t i = 1; i < length; ++i) {
      valid = valid && (byte(i) & 0xc0) == 0x80;
      letter = letter << 6 | (byte(i) & 0x3f);
    }
    valid = valid && (length < 3 || letter >= (length == 3 ? 0x800u : 0x10000u)) && letter <= 0x10ffff;
    need(valid && (letter < 0xd800 || letter > 0xdfff), "invalid UTF-8");
    return length;
  }

  const std::string& text_;
  const bool strict_;
  std::size_t at_ = 0;
};

inline Value Value::parse(const std::string& text, bool strict) { return ValueParser(text, strict).document(); }

// A metadata file, taken apart but not parsed.
struct Envelope {
  std::vector<std::pair<std::string, std::string>> signatures;  // key id, and the signature's bytes
  std::string text;                                             // what is signed, as JSON
  std::string bytes;                                            // the same, as it was signed
};

// Takes a metadata file apart. Throws Damaged if it is not {"signatures":[...],"signed":{...}} as the publisher writes.
inline Envelope taken_apart(const std::string& file) {
  constexpr std::size_t most_signatures = 16;
  std::size_t at = 0;
  const auto take = [&](const std::string& wanted) {
    if (file.compare(at, wanted.size(), wanted) != 0) return false;
    at += wanted.size();
    return true;
  };
  const auto need = [](bool found) {
    if (!found) throw Damaged("not a metadata file of edgekit");
  };
  const auto hex = [&] {
    const std::size_t start = at;
    at = std::min(file.find_first_not_of("0123456789abcdef", at), file.size());
    return file.substr(start, at - start);
  };
  Envelope found;
  need(take("{\"signatures\":["));
  for (bool more = !take("]"); more;) {
    need(found.signatures.size() < most_signatures && take("{\"keyid\":\""));
    const std::string id = hex();
    need(is_hex(id, 64) && take("\",\"sig\":\""));
    const std::string digits = hex();
    need(digits.size() % 2 == 0 && take("\"}"));
    std::string signature;
    for (std::size_t i = 0; i < digits.size(); i += 2) {
      signature += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
    }
    found.signatures.emplace_back(id, signature);
    more = take(",");
    need(more || take("]"));
  }
  need(take(",\"signed\":") && file.size() >= at + 3 && file[at] == '{' && file.compare(file.size() - 2, 2, "}}") == 0);
  found.text = file.substr(at, file.size() - 1 - at);
  for (std::size_t i = 0; i < found.text.size(); ++i) {
    const bool is_escape = found.text[i] == '\\';
    need(!is_escape || (i + 1 < found.text.size() && found.text[i + 1] == 'n'));
    found.bytes += is_escape ? '\n' : found.text[i];
    i += is_escape ? 1 : 0;
  }
  return found;
}

// Returns whether a signature of bytes is by a key: PEM, ECDSA on P-256 with SHA-256.
inline bool is_signed_by(const std::string& pem, const std::string& signature, const std::string& bytes) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> text(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())),
                                                       BIO_free);
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(
      text ? PEM_read_bio_PUBKEY(text.get(), nullptr, nullptr, nullptr) : nullptr, EVP_PKEY_free);
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  if (!key || !context || EVP_PKEY_base_id(key.get()) != EVP_PKEY_EC || EVP_PKEY_bits(key.get()) != 256) return false;
  const auto octets = [](const std::string& given) { return reinterpret_cast<const unsigned char*>(given.data()); };
  return EVP_DigestVerifyInit(context.get(), nullptr, EVP_sha256(), nullptr, key.get()) == 1 &&
         EVP_DigestVerify(context.get(), octets(signature), signature.size(), octets(bytes), bytes.size()) == 1;
}

// Returns the seconds since 1970 of a time such as 2027-01-31T12:00:00Z.
inline std::int64_t seconds_of(const std::string& time) {
  const std::string form = "dddd-dd-ddTdd:dd:ddZ";
  bool valid = time.size() == form.size();
  for (std::size_t i = 0; valid && i < form.size(); ++i) {
    valid = form[i] == 'd' ? time[i] >= '0' && time[i] <= '9' : time[i] == form[i];
  }
  const auto part = [&](std::size_t at, std::size_t length) { return valid ? std::stoll(time.substr(at, length)) : 0; };
  const std::int64_t month = part(5, 2), day = part(8, 2), hour = part(11, 2), minute = part(14, 2), second = part(17, 2);
  valid = valid && month >= 1 && month <= 12 && day >= 1 && day <= 31 && hour < 24 && minute < 60 && second < 60;
  if (!valid) throw Damaged("\"" + time + "\" is no time");
  // Days before a date, with years that begin in March, so that a leap day is the last of its year.
  const std::int64_t year = part(0, 4) - (month <= 2 ? 1 : 0);
  const std::int64_t days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
  return (days - 719468) * 86400 + hour * 3600 + minute * 60 + second;
}

// What the metadata of the role root says: who may sign what.
struct Root {
  struct Role {
    std::set<std::string> keys;  // ids
    std::size_t threshold;
  };
  std::int64_t version = 0, expires = 0;
  std::map<std::string, std::string> keys;  // id to PEM
  std::map<std::string, Role> roles;

  // Returns who may sign the roles that the versions are of, as text.
  std::string signers() const {
    std::string text;
    for (const char* name : {"timestamp", "snapshot", "targets"}) {
      text += std::string(text.empty() ? "" : ";") + name + ":";
      for (const std::string& id : roles.at(name).keys) text += id + ",";
    }
    return text;
  }
};

inline Root root_of(const Value& document) {
  Root made;
  made.version = document["version"].number(1);
  made.expires = seconds_of(document["expires"].text());
  for (const auto& [id, key] : document["keys"].entries()) {
    const bool known = key["keytype"].text() == "ecdsa" && key["scheme"].text() == "ecdsa-sha2-nistp256";
    if (known) made.keys[id] = key["keyval"]["public"].text();  // one of another kind has signed nothing
  }
  for (const char* name : {"root", "timestamp", "snapshot", "targets"}) {
    const Value& role = document["roles"][name];
    Root::Role& own = made.roles[name];
    own.threshold = static_cast<std::size_t>(role["threshold"].number(1));
    for (const Value& id : role["keyids"].items()) own.keys.insert(id.text());
  }
  return made;
}

// Checks that enough keys of a role have signed a file.
inline void check_signatures(const Envelope& file, const Root& by, const std::string& role) {
  const Root::Role& wanted = by.roles.at(role);
  std::set<std::string> signers;  // the keys themselves: two names of one key are one signer
  for (const auto& [id, signature] : file.signatures) {
    const auto key = by.keys.find(id);
    if (wanted.keys.count(id) == 0 || key == by.keys.end() || signers.count(key->second) > 0) continue;
    if (is_signed_by(key->second, signature, file.bytes)) signers.insert(key->second);
  }
  if (signers.size() < wanted.threshold) {
    throw Damaged("signed by " + std::to_string(signers.size()) + " of " + std::to_string(wanted.threshold) + " keys");
  }
}

// Returns what a metadata file says, once its signatures are verified.
inline Value verified(const std::string& file, const Root& by, const std::string& role) {
  const Envelope envelope = taken_apart(file);
  check_signatures(envelope, by, role);
  Value document = Value::parse(envelope.text);
  if (document["_type"].text() != role) throw Damaged("of the role " + document["_type"].text());
  if (document["spec_version"].text().compare(0, 2, "1.") != 0) throw Damaged("of another version of TUF than 1");
  document["version"].number(1);
  return document;
}

// Reads a root that is trusted already, from a file of this device; what is cut or changed throws Damaged.
inline Root trusted_root(const std::string& file) {
  const Envelope envelope = taken_apart(file);
  const Root root = root_of(Value::parse(envelope.text));
  check_signatures(envelope, root, "root");
  return root;
}

}  // namespace edgekit
