#include "patterns/claim_check/options.h"

#include <array>
#include <utility>

#include "config/schema.h"
#include "config/units.h"

namespace prism::claim_check {
namespace {

using namespace config;

enum class Strategy : std::uint8_t { on_consume, retention };
enum class Compression : std::uint8_t { none, gzip };

constexpr std::string_view kDefaultPrefix = "claim-checks/";
// What a record has beside the payload, for most: headers, an id, a key.
constexpr std::uint64_t kRoomForHeaders = 1024;
constexpr std::uint64_t kTinyThreshold = 1000;

struct Cleanup {
  std::optional<Strategy> strategy;
  std::optional<bool> on_consume;
  std::optional<Lifetime> ttl;
  std::optional<Lifetime> retention;
  Clock::duration orphan_age{};
  Clock::duration interval{};
};

struct StorageEntry {
  std::string backend;
  std::string bucket;
  std::string prefix;
  std::optional<Lifetime> ttl;
};

struct MessageEntry {
  bool include_metadata = true;
  std::optional<Compression> compression;
};

struct EntryOptions {
  std::uint64_t threshold = 0;
  StorageEntry storage;
  Cleanup cleanup;
  MessageEntry message;
  std::optional<Compression> compression;
  std::optional<std::string> claim_check_field, metadata_field;
};

const Enum<Compression>& compression_type() {
  static const Enum<Compression> type{{{"none", Compression::none}, {"gzip", Compression::gzip}}};
  return type;
}

// The value at a path of keys; nullptr: not given, or a default.
const Node* at(const Node& map, std::initializer_list<std::string_view> keys) {
  const Node* node = &map;
  for (const std::string_view key : keys) {
    node = node->find(key);
    if (node == nullptr) return nullptr;
  }
  return node;
}

void check_prefix(const StorageEntry& storage, const Node& map, Diagnostics& diagnostics) {
  const Node* node = map.find("prefix");
  if (node == nullptr) return;  // the default
  const std::string& prefix = storage.prefix;
  if (prefix.empty()) {
    diagnostics.warning(*node, "WHOLE_BUCKET",
                        "without a prefix the whole bucket is this namespace's: what no message refers to is deleted",
                        "give a prefix such as payloads/, or use a bucket that holds nothing else");
    return;
  }
  if (prefix.find_first_of("{}") != std::string::npos) {
    diagnostics.error(*node, "INVALID_PLACEHOLDER", "a prefix takes no placeholders, but this is " + node->display(),
                      "write it like videos/raw/; each namespace has a prefix of its own");
    return;
  }
  for (std::size_t from = 0; from < prefix.size();) {
    const std::size_t end = std::min(prefix.find('/', from), prefix.size());
    const auto segment = prefix.substr(from, end - from);
    if (segment.empty() || segment == "." || segment == "..") {
      diagnostics.error(*node, "INVALID_VALUE", node->display() + R"( has an empty, "." or ".." segment)",
                        prefix.starts_with('/') ? "a prefix does not begin with '/': write it like videos/raw/"
                                                : "write it like videos/raw/");
      return;
    }
    from = end + 1;
  }
  if (!prefix.ends_with('/')) {
    diagnostics.warning(
        *node, "PREFIX_WITHOUT_SLASH",
        node->display() + " does not end with '/', so that names of objects are joined to it as they are",
        node->substituted() ? "" : "write " + prefix + "/");
  }
}

std::string bucket_hint(const std::string& text) {
  if (text.find("://") != std::string::npos) return "leave out " + text.substr(0, text.find("://") + 3);
  if (text.find('/') != std::string::npos) return "what stands behind the bucket's name is the 'prefix'";
  if (text.find_first_of("{}") != std::string::npos) return "no placeholders may stand here";
  return {};
}

const Schema<StorageEntry>& storage_schema() {
  static const auto schema =
      Schema<StorageEntry>("storage", "Where payloads are stored.")
          .field(&StorageEntry::backend, "backend", Name(), "The object store, by its name under `backends:`.")
          .default_("s3")
          .field(&StorageEntry::bucket, "bucket",
                 Text{.pattern = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}",
                      .expects = "a bucket: 1 to 128 letters, digits, '.', '_' and '-', beginning with a letter or "
                                 "digit",
                      .hint = bucket_hint},
                 "The bucket; without it `prism-<namespace>`.")
          .field(&StorageEntry::prefix, "prefix",
                 Text{.pattern = "[^\\\\]{0,512}",
                      .expects = "a prefix of at most 512 bytes without backslashes",
                      .allow_empty = true},
                 "What every object's key begins with.")
          .default_(std::string(kDefaultPrefix))
          .field(&StorageEntry::ttl, "ttl", DurationOrInfinite{.min = std::chrono::seconds(1)},
                 "Expiry since the upload (the same as cleanup.ttl).")
          .example("7 days")
          .check({"prefix"}, check_prefix);
  return schema;
}

const Schema<Cleanup>& cleanup_schema() {
  static const auto schema =
      Schema<Cleanup>("cleanup", "When stored payloads are deleted.")
          .field(&Cleanup::strategy, "strategy",
                 Enum<Strategy>{{{"on_consume", Strategy::on_consume}, {"retention", Strategy::retention}}},
                 "on_consume (the default): when every consumer group has acknowledged; retention: by age only.")
          .field(&Cleanup::on_consume, "on_consume", Bool{},
                 "true: the same as strategy on_consume; false: as retention.")
          .field(&Cleanup::ttl, "ttl", DurationOrInfinite{.min = std::chrono::seconds(1)},
                 "A payload is deleted this long after its upload at the latest; default 7 days.")
          .example("7 days")
          .field(&Cleanup::retention, "retention", DurationOrInfinite{.min = std::chrono::seconds(1)},
                 "The same as ttl.")
          .example("7 days")
          .field(&Cleanup::orphan_age, "orphan_age", Duration{.min = std::chrono::seconds(1)},
                 "An object older than this that no message refers to is deleted: its publish never committed. Longer "
                 "than any publish takes between the end of its upload and its commit.")
          .default_("1h")
          .field(&Cleanup::interval, "interval",
                 Duration{.min = std::chrono::milliseconds(10), .max = std::chrono::hours(1)},
                 "How often acknowledgements are looked at.")
          .default_("500ms")
          .check({"strategy", "on_consume"}, [](const Cleanup& cleanup, const Node& map, Diagnostics& diagnostics) {
            if (cleanup.strategy && cleanup.on_consume &&
                (*cleanup.strategy == Strategy::on_consume) != *cleanup.on_consume) {
              diagnostics.error(*map.find("on_consume"), "CONTRADICTING_OPTIONS",
                                "strategy and on_consume say different things", "keep one of them");
            }
          });
  return schema;
}

const Schema<MessageEntry>& message_schema() {
  static const auto schema =
      Schema<MessageEntry>("message", "Form of the reference that is sent in place of a payload.")
          .field(&MessageEntry::include_metadata, "include_metadata", Bool{},
                 "Size and content type stand in the reference.")
          .default_("true")
          .available({"true"})
          .field(&MessageEntry::compression, "compression", compression_type(), "The same as compression.")
          .available({"none"});
  return schema;
}

Text field_name() {
  return Text{.pattern = "[A-Za-z_][A-Za-z0-9_]{0,62}",
              .expects = "the name of a field: at most 63 letters, digits and '_', beginning with a letter or '_'"};
}

// Three names of one thing: those that are given must agree.
struct Expiry {
  std::optional<Lifetime> value;  // nullopt: none is given
  const Node* node = nullptr;
};

Expiry find_expiry(const EntryOptions& options, const Node& map, Diagnostics& diagnostics) {
  const std::array<std::pair<const std::optional<Lifetime>*, const Node*>, 3> given = {{
      {&options.storage.ttl, at(map, {"storage", "ttl"})},
      {&options.cleanup.ttl, at(map, {"cleanup", "ttl"})},
      {&options.cleanup.retention, at(map, {"cleanup", "retention"})},
  }};
  Expiry out;
  for (const auto& [value, node] : given) {
    if (!*value || node == nullptr) continue;
    if (!out.value) {
      out = {*value, node};
    } else if (*out.value != **value) {
      diagnostics.error(*node, "CONTRADICTING_OPTIONS",
                        "storage.ttl, cleanup.ttl and cleanup.retention all mean the expiry of a payload, and " +
                            out.node->display() + " is given in line " + std::to_string(out.node->position().line),
                        "keep one of them");
    }
  }
  return out;
}

bool deletes_on_consume(const Cleanup& cleanup) {
  return cleanup.strategy ? *cleanup.strategy == Strategy::on_consume : cleanup.on_consume.value_or(true);
}

void check_compression(const EntryOptions& options, const Node& map, Diagnostics& diagnostics) {
  const auto& inner = options.message.compression;
  if (!options.compression || !inner || *options.compression == *inner) return;
  diagnostics.error(*at(map, {"message", "compression"}), "CONTRADICTING_OPTIONS",
                    "compression and message.compression mean the same and differ", "keep one of them");
}

void check_expiry(const EntryOptions& options, const Node& map, Diagnostics& diagnostics) {
  const Expiry expiry = find_expiry(options, map, diagnostics);
  if (!deletes_on_consume(options.cleanup) && expiry.value && !*expiry.value) {
    diagnostics.warning(*expiry.node, "PAYLOADS_NEVER_DELETED",
                        "stored payloads are never deleted: cleanup is by retention, and that is infinite",
                        "give a retention such as 30 days, or clean up on consumption");
  }
}

void check_threshold(const EntryOptions& options, const Node& map, Diagnostics& diagnostics) {
  if (const Node* threshold = map.find("threshold"); threshold != nullptr && options.threshold < kTinyThreshold) {
    diagnostics.warning(*threshold, "THRESHOLD_TINY",
                        "almost every message becomes an object: the threshold is " + format_size(options.threshold),
                        "a bare number is bytes: write 1MB for a megabyte");
  }
}

const Schema<EntryOptions>& schema() {
  static const auto result =
      Schema<EntryOptions>("claim-check", "Stores large payloads in an object store and sends a reference.")
          .field(&EntryOptions::threshold, "threshold", Size{.min = 1, .max = 64ULL << 20},
                 "A payload larger than this is stored; one of exactly this size stays inline.")
          .default_("1MB")
          .field(&EntryOptions::storage, "storage", Nested{storage_schema()}.shorthand("backend"),
                 "Where payloads are stored.")
          .field(&EntryOptions::cleanup, "cleanup", Nested{cleanup_schema()}.shorthand("strategy"),
                 "When stored payloads are deleted.")
          .field(&EntryOptions::message, "message", Nested{message_schema()}, "Form of the reference.")
          .field(&EntryOptions::compression, "compression", compression_type(), "Compression of stored payloads.")
          .available({"none"})
          .field(&EntryOptions::claim_check_field, "claim_check_field", field_name(),
                 "Field of the message that carries the reference.")
          .available({"claim_check_id"})
          .field(&EntryOptions::metadata_field, "metadata_field", SqlIdentifier{},
                 "Column of the outbox row that carries the reference.")
          .available({"claim_check_id"})
          .spelling("bucket", "storage.bucket")
          .spelling("prefix", "storage.prefix")
          .check({"compression", "message"}, check_compression)
          .check({"storage", "cleanup"}, check_expiry)
          .check({"threshold"}, check_threshold);
  return result;
}

}  // namespace

std::shared_ptr<const SchemaInfo> options_info() { return schema().shared_info(); }

Options read_options(const Node& entry, Diagnostics& diagnostics) {
  Options options;
  const auto parsed = schema().parse(entry, diagnostics);
  if (!parsed) return options;
  options.threshold = parsed->threshold;
  options.backend = parsed->storage.backend;
  options.bucket = parsed->storage.bucket;
  options.prefix = parsed->storage.prefix;
  options.orphan_age = parsed->cleanup.orphan_age;
  options.interval = parsed->cleanup.interval;
  options.on_consume = deletes_on_consume(parsed->cleanup);
  for (const auto& given : {parsed->storage.ttl, parsed->cleanup.ttl, parsed->cleanup.retention}) {
    if (given) options.expiry = *given;
  }
  return options;
}

void review_options(const Node& entry, const Surroundings& around, Diagnostics& diagnostics) {
  Diagnostics validated_before;
  const Options options = read_options(entry, validated_before);
  const Node* const threshold = entry.find("threshold");
  const auto limits = around.log_type != nullptr ? around.log_type->log : std::nullopt;
  if (limits && threshold != nullptr && options.threshold + kRoomForHeaders > limits->max_record_bytes) {
    diagnostics.warning(
        *threshold, "THRESHOLD_ABOVE_LIMIT",
        around.log + " takes messages of up to " + format_size(limits->max_record_bytes) +
            (limits->setting.empty() ? std::string() : " unless " + std::string(limits->setting) + " is raised") +
            ": payloads between that and the threshold " + format_size(options.threshold) +
            " are neither stored nor taken",
        "lower the threshold" + (limits->setting.empty()
                                     ? std::string()
                                     : ", or raise " + std::string(limits->setting) + " of " + around.log));
  }
  const auto expiry = [&]() -> const Node* {
    const Node* found = nullptr;
    for (const Node* node :
         {at(entry, {"storage", "ttl"}), at(entry, {"cleanup", "ttl"}), at(entry, {"cleanup", "retention"})}) {
      if (node != nullptr && found == nullptr) found = node;
    }
    return found;
  }();
  if (limits && limits->retention && options.expiry && expiry != nullptr && *options.expiry < *limits->retention) {
    diagnostics.warning(*expiry, "EXPIRY_BELOW_RETENTION",
                        "payloads expire after " + format_duration(*options.expiry) + ", but " + around.log +
                            " keeps messages for " + format_duration(*limits->retention) +
                            " by default: those in between refer to payloads that are gone",
                        "let payloads live at least as long as the messages");
  }
  if (!options.on_consume && !around.consumer_groups.empty()) {
    const Node* const cleanup = entry.find("cleanup");
    diagnostics.warning(cleanup != nullptr ? *cleanup : entry, "GROUPS_WITHOUT_CLEANUP",
                        "payloads are deleted by age, whether the declared consumer groups have read them or not",
                        "use strategy on_consume to keep each until every group has acknowledged it");
  }
}

std::vector<Holding> holdings(const Node& entry, std::string_view namespace_name) {
  Diagnostics validated_before;
  const Options options = read_options(entry, validated_before);
  const Node* const storage = entry.find("storage");
  const std::string bucket = options.bucket.empty() ? "prism-" + std::string(namespace_name) : options.bucket;
  const auto shown = [&](std::string_view key, const std::string& value) {
    const Node* node = entry.find(key);
    if (node == nullptr && storage != nullptr) node = storage->is_map() ? storage->find(key) : nullptr;
    if (key == "backend" && storage != nullptr && storage->is_scalar()) node = storage;
    return node != nullptr && node->substituted() ? node->display() : value;
  };
  return {{.kind = Holding::Kind::objects,
           .backend = options.backend,
           .container = bucket,
           .name = options.prefix,
           .shown = shown("backend", options.backend) + "://" + shown("bucket", bucket) + "/" +
                    shown("prefix", options.prefix),
           .at = storage != nullptr ? *storage : entry}};
}

}  // namespace prism::claim_check
