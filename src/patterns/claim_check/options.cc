#include "patterns/claim_check/options.h"

#include "config/schema.h"

namespace prism::claim_check {
namespace {

using namespace config;

enum class Strategy : std::uint8_t { on_consume, retention };

struct Cleanup {
  std::optional<Strategy> strategy;
  std::optional<bool> on_consume;
  std::optional<Node> ttl;
  std::optional<Node> retention;
  Clock::duration orphan_age{};
  Clock::duration interval{};
};

struct StorageEntry {
  std::string backend;
  std::string bucket;
  std::string prefix;
  std::optional<Node> ttl;
};

struct EntryOptions {
  std::uint64_t threshold = 0;
  StorageEntry storage;
  Cleanup cleanup;
  std::optional<Node> message, compression, claim_check_field, metadata_field;
};

const Schema<StorageEntry>& storage_schema() {
  static const auto schema =
      Schema<StorageEntry>("storage", "Where payloads are stored.")
          .field(&StorageEntry::backend, "backend", Name(), "The object store, by its name under `backends:`.")
          .default_("s3")
          .field(&StorageEntry::bucket, "bucket",
                 Text{.pattern = "([A-Za-z0-9][A-Za-z0-9._-]{0,127})?",
                      .expects = "1 to 128 letters, digits, '.', '_' and '-'",
                      .allow_empty = true},
                 "The bucket; without it `prism-<namespace>`.")
          .default_("\"\"")
          .field(&StorageEntry::prefix, "prefix", Text{.allow_empty = true}, "What every object's key begins with.")
          .default_("claim-checks/")
          .field(&StorageEntry::ttl, "ttl", Any{}, "Expiry since the upload (the same as cleanup.ttl).");
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
          .field(&Cleanup::ttl, "ttl", Any{},
                 "A payload is deleted this long after its upload at the latest; default 7 days.")
          .field(&Cleanup::retention, "retention", Any{}, "The same as ttl.")
          .field(&Cleanup::orphan_age, "orphan_age", Duration{.min = std::chrono::seconds(1)},
                 "An object older than this that no message refers to is deleted: its publish never committed. Longer "
                 "than any publish takes "
                 "between the end of its upload and its commit.")
          .default_("1h")
          .field(&Cleanup::interval, "interval",
                 Duration{.min = std::chrono::milliseconds(10), .max = std::chrono::hours(1)},
                 "How often acknowledgements are looked at.")
          .default_("500ms");
  return schema;
}

const Schema<EntryOptions>& schema() {
  static const auto result =
      Schema<EntryOptions>("claim-check", "Stores large payloads in an object store and sends a reference.")
          .field(&EntryOptions::threshold, "threshold", Size{.min = 1, .max = 64ULL << 20},
                 "A payload larger than this is stored; one of exactly this size stays inline.")
          .default_("1MB")
          .field(&EntryOptions::storage, "storage", Nested{storage_schema()}.shorthand("backend"),
                 "Where payloads are stored.")
          .field(&EntryOptions::cleanup, "cleanup", Nested{cleanup_schema()}, "When stored payloads are deleted.")
          .field(&EntryOptions::message, "message", Any{}, "Form of the reference.")
          .field(&EntryOptions::compression, "compression", Any{}, "Compression of stored payloads.")
          .field(&EntryOptions::claim_check_field, "claim_check_field", Any{},
                 "Field of the message that carries the reference.")
          .field(&EntryOptions::metadata_field, "metadata_field", Any{},
                 "Column of the outbox row that carries the reference.")
          .spelling("bucket", "storage.bucket")
          .spelling("prefix", "storage.prefix");
  return result;
}

// What is declared and cannot be had yet is refused rather than ignored; a value that asks for what is done anyway is
// accepted.
void refuse(const std::optional<Node>& node, std::string_view fine, std::string_view name, Diagnostics& diagnostics) {
  if (!node || (node->is_scalar() && node->text() == fine)) return;
  diagnostics.error(*node, "OPTION_NOT_AVAILABLE",
                    "option " + std::string(name) + " is not available in this version of Prism",
                    "leave it out" + (fine.empty() ? std::string() : ", or set it to " + std::string(fine)));
}

}  // namespace

std::shared_ptr<const SchemaInfo> options_info() { return schema().shared_info(); }

Options read_options(const Node& entry, Diagnostics& diagnostics) {
  Options options;
  const auto parsed = schema().parse(entry, diagnostics);
  if (!parsed) return options;
  refuse(parsed->compression, "none", "compression", diagnostics);
  refuse(parsed->claim_check_field, "claim_check_id", "claim_check_field", diagnostics);
  refuse(parsed->metadata_field, "claim_check_id", "metadata_field", diagnostics);
  if (parsed->message) {
    for (const auto& part : parsed->message->entries()) {
      if (part.key == "include_metadata" && part.value.is_scalar() && part.value.text() == "true") continue;
      refuse(part.value, part.key == "compression" ? "none" : "", "message." + part.key, diagnostics);
    }
  }
  const std::string& prefix = parsed->storage.prefix;
  for (std::size_t from = 0; from < prefix.size();) {
    const std::size_t end = std::min(prefix.find('/', from), prefix.size());
    const auto segment = prefix.substr(from, end - from);
    if (segment.empty() || segment == "." || segment == "..") {
      diagnostics.error(entry, "INVALID_VALUE",
                        "storage.prefix \"" + prefix + "\" has an empty, \".\" or \"..\" segment",
                        "write it like videos/raw/");
      break;
    }
    from = end + 1;
  }
  options.threshold = parsed->threshold;
  options.backend = parsed->storage.backend;
  options.bucket = parsed->storage.bucket;
  options.prefix = parsed->storage.prefix;
  options.orphan_age = parsed->cleanup.orphan_age;
  options.interval = parsed->cleanup.interval;
  const auto& cleanup = parsed->cleanup;
  if (cleanup.strategy && cleanup.on_consume && (*cleanup.strategy == Strategy::on_consume) != *cleanup.on_consume) {
    diagnostics.error(entry, "CONTRADICTING_OPTIONS", "cleanup.strategy and cleanup.on_consume say different things",
                      "give one of them");
  }
  options.on_consume = cleanup.strategy ? *cleanup.strategy == Strategy::on_consume : cleanup.on_consume.value_or(true);

  // Three names of one thing: those that are given must agree.
  std::optional<Lifetime> expiry;
  for (const auto& node : {parsed->storage.ttl, cleanup.ttl, cleanup.retention}) {
    Lifetime value;
    if (!node || !DurationOrInfinite{.min = std::chrono::seconds(1)}.parse(*node, value, diagnostics)) continue;
    if (expiry && *expiry != value) {
      diagnostics.error(*node, "CONTRADICTING_OPTIONS",
                        "storage.ttl, cleanup.ttl and cleanup.retention all mean the expiry of a payload, and differ",
                        "give one of them");
    }
    expiry = value;
  }
  if (expiry) options.expiry = *expiry ? std::optional<Clock::duration>(**expiry) : std::nullopt;
  if (!options.on_consume && !options.expiry) {
    diagnostics.warning(entry, "PAYLOADS_NEVER_DELETED",
                        "stored payloads are never deleted: cleanup is by retention, and that is infinite");
  }
  return options;
}

}  // namespace prism::claim_check
