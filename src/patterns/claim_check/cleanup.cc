#include "patterns/claim_check/cleanup.h"

#include <algorithm>
#include <charconv>

#include "base/ids.h"
#include "patterns/log_ports.h"

namespace prism::claim_check {
namespace {

constexpr std::size_t kReadBytes = 4UL << 20;  // records looked at in one step
constexpr std::size_t kListAtOnce = 500;
constexpr std::size_t kMostCandidates = 10'000;  // objects that one round looks for references to
constexpr std::chrono::minutes kClockSkew{1};    // between this machine's clock and the log's
constexpr Clock::duration kEndPatience =
    std::chrono::seconds(2);                       // a reader that gives nothing for so long has come to the end
constexpr std::size_t kMostLookedAt = 64UL << 20;  // bytes of records in search of one
constexpr std::size_t kRecordOverhead = 256;
constexpr Clock::duration kReadPatience = std::chrono::seconds(5);  // for records that are known to exist

const std::string& id_header() {
  static const std::string name = header_of_attribute("claim_check_id");
  return name;
}

std::string_view header(const Record& record, std::string_view name) {
  for (const auto& [key, value] : record.headers) {
    if (key == name) return value.view();
  }
  return {};
}

Start after(const TopicInfo& topic, std::uint32_t partition, std::uint64_t cursor) {
  if (cursor == 0) return {};
  return Start{Position(PositionPart{topic.incarnation, partition, cursor - 1})};
}

}  // namespace

std::string cursor_key(const std::string& namespace_name, const std::string& topic, const Id128& incarnation,
                       std::uint32_t partition) {
  return "claim-check/" + namespace_name + "/" + topic + "/" + to_hex(incarnation) + "/" + std::to_string(partition);
}

Task<Result<std::uint64_t>> read_cursor(Context context, std::shared_ptr<KeyValueStore> state, std::string key) {
  auto got = co_await state->get(std::move(context), {std::move(key)}, {});
  if (!got.front()) co_return std::unexpected(std::move(got.front()).error());
  std::uint64_t cursor = 0;
  if (const auto& entry = *got.front()) {
    const auto text = entry->value.view();
    std::from_chars(text.data(), text.data() + text.size(), cursor);
  }
  co_return cursor;
}

Task<Result<WallTime>> known_since(Context context, std::shared_ptr<KeyValueStore> state, std::string namespace_name) {
  const std::string key = "claim-check/" + namespace_name + "/since";
  auto got = co_await state->get(context, {key}, {});
  if (!got.front()) co_return std::unexpected(std::move(got.front()).error());
  std::int64_t since = 0;
  if (const auto& entry = *got.front()) {
    const auto text = entry->value.view();
    std::from_chars(text.data(), text.data() + text.size(), since);
    co_return WallTime(std::chrono::microseconds(since));
  }
  const WallTime now = wall_now();
  Batch<Mutation> batch;
  batch.push_back({.key = key,
                   .value = Bytes(std::to_string(now.time_since_epoch().count())),
                   .expect = {},
                   .expect_absent = true,
                   .ttl = {}});
  auto written = co_await state->apply(context, std::move(batch));
  if (!written.front() && written.front().error().reason != "ALREADY_EXISTS")
    co_return std::unexpected(std::move(written.front()).error());
  co_return now;
}

Task<Result<std::vector<std::uint64_t>>> lowest_floors(Context context, Site site, TopicInfo topic) {
  std::vector<std::string> groups = site.groups;
  if (groups.empty()) {
    PRISM_CO_TRY(groups, co_await site.log->groups(context, topic.name));
  }
  std::vector<std::uint64_t> floor(topic.partitions, UINT64_MAX);
  for (const auto& group : groups) {
    PRISM_CO_TRY(const auto floors, co_await site.log->floors(context, topic.name, group));
    for (const auto& f : floors) {
      if (f.partition < floor.size())
        floor[f.partition] = std::min(floor[f.partition], f.ever_committed ? f.acked_below : 0);
    }
  }
  co_return floor;
}

Task<Result<bool>> acknowledged_elsewhere(Context context, Site site, std::string topic, std::string claim_check_id,
                                          PositionPart at, bool keyed) {
  PRISM_CO_TRY(const auto info, co_await site.topics->ensure(context, topic));
  PRISM_CO_TRY(auto floor, co_await lowest_floors(context, site, info));
  std::size_t unseen = 0;  // partitions with records below the floor that have not been passed
  for (std::uint32_t p = 0; p < floor.size(); ++p) {
    if (floor[p] == UINT64_MAX || (keyed && p != at.partition)) floor[p] = 0;
    if (floor[p] > 0) ++unseen;
  }
  if (unseen == 0) co_return false;
  // No record can refer to a payload before it was uploaded.
  Start start;
  if (const auto uploaded = uuid7_time(claim_check_id)) start.at = *uploaded - kClockSkew;
  PRISM_CO_TRY(auto reader,
               co_await site.log->read(context, topic, keyed ? std::optional(at.partition) : std::nullopt, start));
  bool found = false;
  std::optional<Error> problem;
  for (std::size_t looked_at = 0; !found && unseen > 0 && looked_at < kMostLookedAt;) {
    auto records = co_await reader->next(context.with_timeout(kEndPatience), kReadBytes);
    if (!records) {
      problem = std::move(records).error();
      break;
    }
    if (records->empty()) break;
    for (const auto& [record, position] : *records) {
      looked_at += record.body.size() + kRecordOverhead;
      const auto& part = position.parts().front();
      if (part.partition >= floor.size() || floor[part.partition] == 0) continue;
      const bool itself = part.partition == at.partition && part.offset == at.offset;
      found =
          found || (part.offset < floor[part.partition] && !itself && header(record, id_header()) == claim_check_id);
      if (part.offset + 1 >= floor[part.partition]) {
        floor[part.partition] = 0;
        --unseen;
      }
    }
  }
  co_await reader->close(context);
  if (problem && problem->code != Code::deadline_exceeded) co_return std::unexpected(std::move(*problem));
  co_return found;
}

Task<Result<bool>> caught_up(Context context, Site site) {
  PRISM_CO_TRY(const auto topics, co_await site.topics->known(context));
  for (const auto& name : topics) {
    PRISM_CO_TRY(const auto topic, co_await site.topics->ensure(context, name));
    PRISM_CO_TRY(const auto floor, co_await lowest_floors(context, site, topic));
    for (std::uint32_t partition = 0; partition < topic.partitions; ++partition) {
      if (floor[partition] == UINT64_MAX) continue;
      PRISM_CO_TRY(const auto cursor,
                   co_await read_cursor(context, site.state,
                                        cursor_key(site.namespace_name, name, topic.incarnation, partition)));
      if (cursor < floor[partition]) co_return false;
    }
  }
  co_return true;
}

Cleaner::Cleaner(Site site)
    : site_(std::move(site)),
      info_{.name = site_.namespace_name + "/claim-check/cleaner",
            .shards = 1,
            .interval = site_.options.interval,
            .harmless = "objects are deleted only below the floor of every group, and deleting twice changes nothing"} {
}

Task<Result<Round>> Cleaner::round(Context context, std::uint32_t /*shard*/, Grant /*grant*/) {
  Round total;
  PRISM_CO_TRY(const auto topics, co_await site_.topics->known(context));
  std::optional<Error> first_error;  // one bad topic does not hold up the others
  for (const auto& name : topics) {
    auto round = co_await clean(context, name);
    if (!round) {
      if (!first_error) first_error = std::move(round).error();
      continue;
    }
    total.items += round->items;
    total.more = total.more || round->more;
  }
  if (first_error) co_return std::unexpected(std::move(*first_error));
  co_return total;
}

Task<Result<Round>> Cleaner::clean(Context context, std::string name) {
  Round total;
  PRISM_CO_TRY(const auto topic, co_await site_.topics->ensure(context, name));
  PRISM_CO_TRY(const auto floor, co_await lowest_floors(context, site_, topic));
  for (std::uint32_t partition = 0; partition < topic.partitions; ++partition) {
    if (floor[partition] == UINT64_MAX) continue;  // nobody has begun to consume: only expiry deletes
    PRISM_CO_TRY(const auto round, co_await clean_partition(context, topic, partition, floor[partition]));
    total.items += round.items;
    total.more = total.more || round.more;
  }
  co_return total;
}

Task<Result<Round>> Cleaner::clean_partition(Context context, TopicInfo topic, std::uint32_t partition,
                                             std::uint64_t floor) {
  Round done;
  const std::string key = cursor_key(site_.namespace_name, topic.name, topic.incarnation, partition);
  PRISM_CO_TRY(std::uint64_t cursor, co_await read_cursor(context, site_.state, key));
  if (cursor >= floor) co_return done;

  PRISM_CO_TRY(auto reader, co_await site_.log->read(context, topic.name, partition, after(topic, partition, cursor)));
  auto records = co_await reader->next(context.with_timeout(kReadPatience), kReadBytes);
  co_await reader->close(context);
  if (!records) co_return std::unexpected(std::move(records).error());
  if (records->empty()) co_return done;  // the log was too slow, or it has trimmed these records: the next ones tell
  std::uint64_t reached = cursor;
  std::vector<std::string> objects;
  std::vector<std::pair<std::string, std::uint64_t>> sizes;
  for (const auto& [record, at] : *records) {
    const std::uint64_t offset = at.parts().front().offset;
    if (offset >= floor) {
      reached = floor;
      break;
    }
    reached = offset + 1;
    if (header(record, id_header()).empty()) continue;
    // Another store, bucket or prefix: written under an earlier configuration, or not by us; such objects expire by
    // their own rules.
    if (header(record, "prism-claim-check-backend") != site_.options.backend ||
        header(record, "prism-claim-check-bucket") != site_.options.bucket) {
      continue;
    }
    const auto object = header(record, "prism-claim-check-key");
    if (!object.starts_with(site_.options.prefix) || !uuid7_time(object.substr(site_.options.prefix.size()))) continue;
    objects.emplace_back(object);
    std::uint64_t size = 0;
    const auto text = header(record, "prism-payload-size");
    std::from_chars(text.data(), text.data() + text.size(), size);
    sizes.emplace_back(object, size);
  }
  done.items = objects.size();
  if (!objects.empty()) {
    for (auto& removed : co_await site_.store->remove(context, std::move(objects))) PRISM_CO_CHECK(std::move(removed));
    site_.counted->cleaned->add(sizes.size());
    for (const auto& [object, size] : sizes) site_.counted->held->removed(object, size);
  }
  Mutation move{.key = key, .value = Bytes(std::to_string(reached)), .expect = {}, .expect_absent = false, .ttl = {}};
  Batch<Mutation> batch;
  batch.push_back(std::move(move));
  for (auto& written : co_await site_.state->apply(context.shielded(kReadPatience), std::move(batch)))
    PRISM_CO_CHECK(std::move(written));
  done.more = reached < floor;
  co_return done;
}

Sweeper::Sweeper(Site site)
    : site_(std::move(site)),
      info_{.name = site_.namespace_name + "/claim-check/sweeper",
            .shards = 1,
            .interval = std::clamp<Clock::duration>(site_.options.orphan_age / 4, std::chrono::milliseconds(200),
                                                    std::chrono::minutes(1)),
            .harmless =
                "it removes only what is expired or what nothing refers to, and removing twice changes nothing"} {}

Task<Result<void>> Sweeper::strike_out(Context context, Sizes* candidates) {
  const auto refers_to = [&](const std::string& id) {
    if (candidates->erase(id) > 0) referred_.insert(id);
  };
  PRISM_CO_TRY(const auto pending, co_await site_.pending->claim_check_ids(context));
  for (const auto& id : pending) refers_to(id);
  PRISM_CO_TRY(const auto topics, co_await site_.topics->known(context));
  for (const auto& name : topics) {
    PRISM_CO_TRY(const auto topic, co_await site_.topics->ensure(context, name));
    PRISM_CO_TRY(const auto end, co_await site_.log->end(context, name));
    for (const auto& part : end.parts()) {
      PRISM_CO_TRY(std::uint64_t cursor,
                   co_await read_cursor(context, site_.state,
                                        cursor_key(site_.namespace_name, name, topic.incarnation, part.partition)));
      if (cursor > part.offset) continue;
      PRISM_CO_TRY(auto reader,
                   co_await site_.log->read(context, name, part.partition, after(topic, part.partition, cursor)));
      while (cursor <= part.offset) {
        auto records = co_await reader->next(context.with_timeout(kReadPatience), kReadBytes);
        if (!records || records->empty()) {
          co_await reader->close(context);
          if (!records) co_return std::unexpected(std::move(records).error());
          co_return fail(Code::unavailable, "LOG_NOT_READABLE",
                         "records of " + name + " could not be read up to its end", {}, Retry::safe);
        }
        for (const auto& [record, at] : *records) {
          cursor = at.parts().front().offset + 1;
          const auto id = header(record, id_header());
          if (!id.empty()) refers_to(std::string(id));
        }
      }
      co_await reader->close(context);
    }
  }
  co_return {};
}

Task<Result<std::uint64_t>> Sweeper::remove(Context context, Sizes objects) {
  if (objects.empty()) co_return 0;
  std::vector<std::string> keys;
  keys.reserve(objects.size());
  for (const auto& [key, size] : objects) keys.push_back(key);
  for (auto& removed : co_await site_.store->remove(context, std::move(keys))) PRISM_CO_CHECK(std::move(removed));
  site_.counted->cleaned->add(objects.size());
  for (const auto& [key, size] : objects) site_.counted->held->removed(key, size);
  co_return objects.size();
}

Task<Result<Round>> Sweeper::round(Context context, std::uint32_t /*shard*/, Grant /*grant*/) {
  Round done;
  const WallTime now = wall_now();
  const auto older = [&](WallTime time, Clock::duration age) {
    return now - time > std::chrono::duration_cast<std::chrono::microseconds>(age);
  };
  PRISM_CO_TRY(const WallTime since, co_await known_since(context, site_.state, site_.namespace_name));
  PRISM_CO_CHECK(co_await site_.store->abort_uploads(
      context, site_.options.prefix,
      now - std::chrono::duration_cast<std::chrono::microseconds>(site_.options.orphan_age)));

  // Keys sort by time of creation: the walk ends at the first one that is too young for anything.
  const std::size_t prefix = site_.options.prefix.size();
  Sizes candidates;  // by id
  std::set<std::string> present;
  std::string last;
  for (bool more = true; more;) {
    PRISM_CO_TRY(const auto page, co_await site_.store->list(context, site_.options.prefix, last, kListAtOnce));
    more = page.size() == kListAtOnce && candidates.size() < kMostCandidates;
    Sizes expired;
    for (const auto& object : page) {
      last = object.key;
      const std::string id = object.key.substr(prefix);
      const auto made = uuid7_time(id);
      if (!made) continue;  // not ours
      if (site_.options.expiry && older(*made, *site_.options.expiry)) {
        expired.emplace(object.key, object.size);
      } else if (!site_.options.on_consume || !older(*made, site_.options.orphan_age)) {
        more = false;
        break;
      } else if (referred_.contains(id)) {
        present.insert(id);
      } else if (*made >= since && older(object.modified, site_.options.orphan_age)) {
        candidates.emplace(id, object.size);
      }
    }
    PRISM_CO_TRY(const auto removed, co_await remove(context, std::move(expired)));
    done.items += removed;
  }
  referred_ = std::move(present);
  if (candidates.empty()) co_return done;
  PRISM_CO_CHECK(co_await strike_out(context, &candidates));
  Sizes orphans;
  for (const auto& [id, size] : candidates) orphans.emplace(site_.options.prefix + id, size);
  PRISM_CO_TRY(const auto removed, co_await remove(context, std::move(orphans)));
  done.items += removed;
  co_return done;
}

}  // namespace prism::claim_check
