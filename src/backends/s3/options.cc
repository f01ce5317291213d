#include "backends/s3/options.h"

#include <cstdlib>

#include "base/text.h"

namespace prism::s3 {

using namespace config;
using namespace std::chrono_literals;

namespace {

const Schema<client::PoolOptions>& pool_schema() {
  using client::PoolOptions;
  static const auto schema =
      Schema<PoolOptions>("s3_pool", "Connections of this process to the server.")
          .field(&PoolOptions::connections, "connections", Int{.min = 1, .max = 1'000},
                 "How many at most; each object that is being read, and each part that is being stored, has one.")
          .default_("64")
          .field(&PoolOptions::queue, "queue", Int{.min = 0, .max = 1'000'000},
                 "Requests that may wait for a connection; further ones are refused (BACKEND_OVERLOADED).")
          .default_("1000")
          .field(&PoolOptions::wait, "wait", Duration{.min = 1ms, .max = 10min}, "How long each may wait.")
          .default_("5s");
  return schema;
}

const Schema<KeyValueOptions>& key_value_schema() {
  static const auto schema =
      Schema<KeyValueOptions>("s3_key_value", "Where values by key are kept.")
          .field(&KeyValueOptions::bucket, "bucket",
                 Text{.pattern = "[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
                      .expects = "3 to 63 lower-case letters, digits, '-' and '.'"},
                 "The bucket.")
          .required()
          .field(&KeyValueOptions::prefix, "prefix",
                 Text{.pattern = "([A-Za-z0-9_-]{1,40}/){1,2}", .expects = "a name, and '/' at its end"},
                 "What the keys of its objects begin with; nothing else may be kept there.")
          .default_("prism-kv/");
  return schema;
}

void need_both(const Options& options, const Node& map, Diagnostics& diagnostics) {
  if (options.access_key_id.has_value() == options.secret_access_key.has_value()) return;
  const std::string given = options.access_key_id ? "access_key_id" : "secret_access_key";
  const std::string other = options.access_key_id ? "secret_access_key" : "access_key_id";
  diagnostics.error(*map.find(given), "MISSING_OPTION", "'" + given + "' is of no use without '" + other + "'",
                    "give both, or neither");
}

void check_token(const Options& options, const Node& map, Diagnostics& diagnostics) {
  if (!options.session_token || options.access_key_id) return;
  diagnostics.error(*map.find("session_token"), "MISSING_OPTION",
                    "'session_token' is of no use without 'access_key_id'", "give all three, or none");
}

void check_encryption(const Options& options, const Node& map, Diagnostics& diagnostics) {
  if (!options.tls) return;
  const bool encrypted = !options.endpoint || options.endpoint->starts_with("https:");
  if (encrypted == options.tls->enabled) return;
  diagnostics.error(*map.find("tls"), "CONTRADICTING_OPTIONS",
                    encrypted ? "the endpoint begins with https://, and tls is not enabled"
                              : "the endpoint begins with http://, and tls is given",
                    "whether the connection is encrypted is said by the endpoint");
}

const char* environment(const char* name) {
  const char* const value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

}  // namespace

const Schema<Options>& options_schema() {
  static const auto schema =
      Schema<Options>("s3", "Connection to S3 and what speaks its protocol.")
          .field(&Options::endpoint, "endpoint",
                 Text{.pattern = R"(https?://[A-Za-z0-9._\[\]:-]+/?)",
                      .expects = "an address that begins with http:// or https://"},
                 "The service; without it AWS's in the region.")
          .example("https://minio.example.com:9000")
          .field(&Options::region, "region",
                 Text{.pattern = "[a-z0-9-]{1,40}", .expects = "a region such as eu-central-1"},
                 "The region; without it the environment's (AWS_REGION), else us-east-1.")
          .field(&Options::access_key_id, "access_key_id", Text{},
                 "Name of the key; without it the environment's (AWS_ACCESS_KEY_ID).")
          .field(&Options::secret_access_key, "secret_access_key", SecretText{}, "The key.")
          .field(&Options::session_token, "session_token", SecretText{}, "Of temporary credentials.")
          .field(&Options::path_style, "path_style", Bool{},
                 "Buckets in the path instead of the host's name; without it so where an endpoint is given.")
          .field(&Options::create_bucket, "create_bucket", Bool{}, "Makes a bucket that is missing.")
          .default_("false")
          .field(&Options::sign_payload, "sign_payload", Bool{},
                 "Includes what is stored in the signature (SHA-256), for endpoints without encryption; its checksum "
                 "is always included.")
          .default_("false")
          .field(&Options::part_size, "part_size", Size{.min = 5ULL << 20, .max = 1ULL << 30},
                 "Larger objects are stored in parts of this size, or larger ones where 10000 of them are not enough; "
                 "each is held in memory until it is stored.")
          .default_("8MiB")
          .field(&Options::parallel_parts, "parallel_parts", Int{.min = 1, .max = 64},
                 "Parts of one object that are being stored at a time, while the byte budget has room.")
          .default_("4")
          .field(
              &Options::abort_uploads_after, "abort_uploads_after_days", Int{.min = 0, .max = 365},
              "Adds a rule to the life cycle of the buckets: the server removes uploads that were not finished in so "
              "many days; 0: no rule. Prism removes its own also without it.")
          .default_("0")
          .field(&Options::key_value, "key_value", Nested{key_value_schema()}.shorthand("bucket"),
                 "Where values by key are kept; without it the backend keeps none.")
          .field(&Options::tls, "tls", Nested{client::tls_schema()},
                 "Encryption of the connection, beyond the scheme of the endpoint.")
          .field(&Options::retry, "retry", Nested{client::retry_schema()}.shorthand("attempts"),
                 "Repetition of requests that have failed and may be repeated.")
          .field(&Options::pool, "pool", Nested{pool_schema()}.shorthand("connections"),
                 "Connections of this process to the server.")
          .field(&Options::timeouts, "timeouts", Nested{client::timeout_schema()}.shorthand("operation"),
                 "How long the server may take; `operation`: how long nothing may move.")
          .field(&Options::breaker, "breaker", Nested{client::breaker_schema()}.shorthand("failures"),
                 "When a server that does not answer is left alone, and for how long.")
          .check({"access_key_id", "secret_access_key"}, need_both)
          .check({"access_key_id", "session_token"}, check_token)
          .check({"endpoint", "tls"}, check_encryption);
  return schema;
}

std::optional<Credentials> credentials_of(const Options& options) {
  if (options.access_key_id) {
    return Credentials{*options.access_key_id, *options.secret_access_key, options.session_token.value_or(Secret())};
  }
  const char* const id = environment("AWS_ACCESS_KEY_ID");
  const char* const key = environment("AWS_SECRET_ACCESS_KEY");
  if (id == nullptr || key == nullptr) return std::nullopt;
  const char* const token = environment("AWS_SESSION_TOKEN");
  return Credentials{id, Secret(key), Secret(token != nullptr ? token : "")};
}

std::string region_of(const Options& options) {
  if (options.region) return *options.region;
  for (const char* name : {"AWS_REGION", "AWS_DEFAULT_REGION"}) {
    if (const char* const region = environment(name)) return region;
  }
  return "us-east-1";
}

Result<void> check_bucket(std::string_view bucket) {
  const auto alphanumeric = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  bool good = bucket.size() >= 3 && bucket.size() <= 63 && alphanumeric(bucket.front()) && alphanumeric(bucket.back());
  for (const char c : bucket) good = good && (alphanumeric(c) || c == '-' || c == '.');
  if (good) return {};
  return fail(Code::invalid_argument, "INVALID_BUCKET", "'" + shown(bucket) + "' is not a bucket's name",
              "use 3 to 63 lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit");
}

Endpoint::Endpoint(const Options& options) {
  std::string_view address;
  std::string own;
  if (options.endpoint) {
    address = *options.endpoint;
  } else {
    own = "https://s3." + region_of(options) + ".amazonaws.com";
    address = own;
  }
  encrypted_ = address.starts_with("https://");
  address.remove_prefix(encrypted_ ? 8 : 7);
  if (address.ends_with('/')) address.remove_suffix(1);
  const std::string_view scheme_port = encrypted_ ? ":443" : ":80";
  if (address.ends_with(scheme_port)) address.remove_suffix(scheme_port.size());
  authority_ = address;
  path_style_ = options.path_style.value_or(options.endpoint.has_value());
  if (options.tls && options.tls->server_name) {
    const std::size_t bracket = authority_.rfind(']');
    const std::size_t colon = authority_.rfind(':');
    const bool has_port = colon != std::string::npos && (bracket == std::string::npos || colon > bracket);
    certificate_ = *options.tls->server_name + (has_port ? authority_.substr(colon) : "");
    connect_to_ = "::" + authority_ + (has_port ? "" : ":443");
  }
}

Location Endpoint::of(const std::string& bucket) const {
  const std::string scheme = encrypted_ ? "https://" : "http://";
  // A certificate for *.host is for none of a.b.host.
  const bool in_path = path_style_ || bucket.empty() || (encrypted_ && bucket.find('.') != std::string::npos);
  const std::string host = in_path ? authority_ : bucket + "." + authority_;
  return {scheme + (certificate_.empty() ? host : certificate_), host,
          in_path && !bucket.empty() ? "/" + bucket + "/" : "/"};
}

}  // namespace prism::s3
