#include "backends/s3/sigv4.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include <algorithm>
#include <chrono>
#include <ctime>

#include "base/base64.h"

namespace prism::s3 {
namespace {

std::string hmac(std::string_view key, std::string_view data) {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(data.data()),
       data.size(), out, &size);
  return std::string(reinterpret_cast<const char*>(out), size);
}

// Without spaces around, and with one where there are several.
std::string trimmed(std::string_view value) {
  std::string out;
  for (const char c : value) {
    if (c == ' ' && (out.empty() || out.back() == ' ')) continue;
    out += c;
  }
  while (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

}  // namespace

std::string uri_encode(std::string_view text, bool keep_slashes) {
  static constexpr char digits[] = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size() + 16);
  for (const char c : text) {
    const bool plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
                       c == '.' || c == '_' || c == '~' || (keep_slashes && c == '/');
    if (plain) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += '%';
      out += digits[byte >> 4];
      out += digits[byte & 15];
    }
  }
  return out;
}

std::string canonical_query(const Query& query) {
  Query encoded;
  encoded.reserve(query.size());
  for (const auto& [name, value] : query) encoded.emplace_back(uri_encode(name, false), uri_encode(value, false));
  std::ranges::sort(encoded);
  std::string out;
  for (const auto& [name, value] : encoded) {
    if (!out.empty()) out += '&';
    out += name + "=" + value;
  }
  return out;
}

std::string hex(std::string_view bytes) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    out += digits[byte >> 4];
    out += digits[byte & 15];
  }
  return out;
}

std::string sha256(std::string_view data) {
  unsigned char out[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(data.data()), data.size(), out);
  return std::string(reinterpret_cast<const char*>(out), sizeof out);
}

std::string md5_base64(std::string_view data) {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_Digest(data.data(), data.size(), out, &size, EVP_md5(), nullptr);
  return base64_encode(std::string_view(reinterpret_cast<const char*>(out), size));
}

Signer::Signer(Credentials credentials, std::string region, std::string service)
    : credentials_(std::move(credentials)), region_(std::move(region)), service_(std::move(service)) {}

std::string Signer::key_of(const std::string& day) const {
  const std::lock_guard lock(mutex_);
  if (day_ != day) {
    key_ = hmac(hmac(hmac(hmac("AWS4" + credentials_.secret_access_key.reveal(), day), region_), service_),
                "aws4_request");
    day_ = day;
  }
  return key_;
}

void Signer::sign(std::string_view method, std::string_view path, std::string_view query, HeaderList& headers,
                  std::string_view payload, WallTime now) const {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  char stamp[17];
  std::strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &utc);
  const std::string day(stamp, 8);
  headers.emplace_back("x-amz-date", stamp);
  if (!credentials_.session_token.empty()) {
    headers.emplace_back("x-amz-security-token", credentials_.session_token.reveal());
  }

  std::vector<std::pair<std::string_view, std::string>> signed_headers;
  for (const auto& [name, value] : headers) signed_headers.emplace_back(name, trimmed(value));
  std::ranges::sort(signed_headers, {}, [](const auto& header) { return header.first; });
  std::string request(method);
  request += '\n';
  request += path;
  request += '\n';
  request += query;
  request += '\n';
  std::string names;
  for (const auto& [name, value] : signed_headers) {
    request += name;
    request += ':';
    request += value;
    request += '\n';
    if (!names.empty()) names += ';';
    names += name;
  }
  request += '\n';
  request += names;
  request += '\n';
  request += payload;

  const std::string scope = day + "/" + region_ + "/" + service_ + "/aws4_request";
  const std::string text = "AWS4-HMAC-SHA256\n" + std::string(stamp) + "\n" + scope + "\n" + hex(sha256(request));
  headers.emplace_back("authorization", "AWS4-HMAC-SHA256 Credential=" + credentials_.access_key_id + "/" + scope +
                                            ", SignedHeaders=" + names + ", Signature=" + hex(hmac(key_of(day), text)));
}

}  // namespace prism::s3
