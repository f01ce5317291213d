#include "backends/kafka/topics.h"

#include <charconv>
#include <thread>

#include "backends/kafka/errors.h"
#include "base/text.h"

namespace prism::kafka {
namespace {

constexpr auto kFresh = std::chrono::seconds(30);
// A topic that another process has just made gets its incarnation from it in a moment; after this time any may give it.
constexpr auto kMakersTime = std::chrono::milliseconds(1'000);
// Two that give one at the same time both take what was written last.
constexpr auto kSettling = std::chrono::milliseconds(100);
constexpr std::chrono::seconds kCommitAgain = std::chrono::hours(24);

struct Mark {
  Id128 id;
  std::int64_t written;  // seconds since 1970
};

std::int64_t now_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(wall_now().time_since_epoch()).count();
}
std::string encode(const Mark& mark) { return to_hex(mark.id) + " " + std::to_string(mark.written); }
std::optional<Mark> decode(std::string_view text) {
  const auto space = text.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  const auto id = from_hex(text.substr(0, space));
  std::int64_t written = 0;
  const auto rest = text.substr(space + 1);
  if (!id || std::from_chars(rest.data(), rest.data() + rest.size(), written).ec != std::errc()) return std::nullopt;
  return Mark{*id, written};
}

}  // namespace

Result<std::string> Topics::wire(const std::string& name) const {
  PRISM_CHECK(check_topic_name(name));
  std::string out = connection_.options().prefix + encode_topic(name);
  if (out.size() <= kMaxKafkaTopicBytes) return out;
  return fail(Code::invalid_argument, "INVALID_TOPIC",
              "the name of topic \"" + shown(name) + "\" has " + std::to_string(out.size()) +
                  " bytes as Kafka spells it, and may have " + std::to_string(kMaxKafkaTopicBytes),
              "choose a shorter one; characters other than letters, digits, '.', '_' and '-' take five bytes each");
}

TopicPtr Topics::cached(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto it = topics_.find(name);
  return it != topics_.end() ? it->second : nullptr;
}

bool Topics::stale(const Topic& topic) const { return Clock::now() - topic.loaded > kFresh; }

void Topics::forget(const std::string& name) {
  const std::lock_guard lock(mutex_);
  topics_.erase(name);
}

Result<TopicPtr> Topics::load(const std::string& name, Clock::time_point deadline) {
  PRISM_TRY(const std::string wire, this->wire(name));
  auto meta = admin_.metadata(wire, deadline);
  if (!meta) {
    if (meta.error().reason != "TOPIC_NOT_FOUND") return fail(std::move(meta).error());
    forget(name);
    return fail(topic_not_found(name));
  }
  return describe(name, wire, *meta, false, deadline);
}

Result<TopicPtr> Topics::ensure(const TopicSpec& spec, Clock::time_point deadline) {
  PRISM_TRY(const std::string wire, this->wire(spec.name));
  auto meta = admin_.metadata(wire, deadline);
  if (meta) return describe(spec.name, wire, *meta, false, deadline);
  if (meta.error().reason != "TOPIC_NOT_FOUND") return fail(std::move(meta).error());
  const Options& options = connection_.options();
  PRISM_TRY(const bool made, admin_.create(wire, spec.partitions != 0 ? spec.partitions : options.partitions,
                                           spec.replication != 0 ? spec.replication : options.replication, deadline));
  // Brokers learn of it one after the other.
  while (true) {
    meta = admin_.metadata(wire, deadline);
    if (meta || meta.error().reason != "TOPIC_NOT_FOUND" || Clock::now() >= deadline) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  if (!meta) return fail(std::move(meta).error());
  return describe(spec.name, wire, *meta, made, deadline);
}

Result<TopicPtr> Topics::describe(const std::string& name, const std::string& wire, Admin::TopicMeta meta,
                                  bool made_here, Clock::time_point deadline) {
  Topic topic{.name = name, .wire = wire, .partitions = meta.partitions, .replication = meta.replication};
  PRISM_TRY(topic.max_message_bytes, admin_.max_message_bytes(wire, deadline));
  PRISM_TRY(topic.incarnation, incarnation(wire, made_here, deadline));
  topic.loaded = Clock::now();
  auto made = std::make_shared<const Topic>(std::move(topic));
  const std::lock_guard lock(mutex_);
  topics_[name] = made;
  return made;
}

Result<Id128> Topics::incarnation(const std::string& wire, bool made_here, Clock::time_point deadline) {
  const std::string group = std::string(kInternalPrefix) + ".topics";
  const auto read = [&]() -> Result<std::optional<Mark>> {
    PRISM_TRY(const auto held, admin_.committed(group, wire, 1, deadline));
    return held[0].offset ? decode(held[0].metadata) : std::nullopt;
  };
  const auto write = [&](const Id128& id) -> Result<void> {
    PartitionList list;
    list.add(wire, 0, 0, encode({id, now_seconds()}));
    PRISM_TRY(const bool written, admin_.commit(group, list, deadline));
    if (written) return {};
    return fail(Code::failed_precondition, "BACKEND_REFUSED",
                connection_.peer().text() + ": somebody consumes in the group " + group + ", which is Prism's own",
                "let consumers use another group");
  };
  PRISM_TRY(auto mark, read());
  for (const auto give = Clock::now() + kMakersTime; !mark && !made_here && Clock::now() < give;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    PRISM_TRY(mark, read());
  }
  if (mark) {
    if (now_seconds() - mark->written > kCommitAgain.count()) PRISM_CHECK(write(mark->id));
    return mark->id;
  }
  const Id128 id = random_id();
  PRISM_CHECK(write(id));
  if (made_here) return id;
  std::this_thread::sleep_for(kSettling);
  PRISM_TRY(mark, read());
  return mark ? mark->id : id;
}

Result<std::vector<TopicPtr>> Topics::all(Clock::time_point deadline) {
  PRISM_TRY(const auto found, admin_.all_topics(deadline));
  const std::string& prefix = connection_.options().prefix;
  std::vector<TopicPtr> out;
  for (const auto& [wire, meta] : found) {
    if (wire.starts_with("__") || !wire.starts_with(prefix)) continue;
    const std::string name = decode_topic(std::string_view(wire).substr(prefix.size()));
    if (auto known = cached(name); known != nullptr && !stale(*known)) {
      out.push_back(std::move(known));
      continue;
    }
    auto topic = describe(name, wire, meta, false, deadline);
    if (topic) {
      out.push_back(std::move(*topic));
    } else if (topic.error().reason != "TOPIC_NOT_FOUND") {
      return fail(std::move(topic).error());
    }
  }
  return out;
}

}  // namespace prism::kafka
