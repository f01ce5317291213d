#include "patterns/claim_check/cleanup.h"

#include <algorithm>
#include <charconv>

#include "base/ids.h"
#include "patterns/log_ports.h"

namespace prism::claim_check {
namespace {

constexpr std::size_t kReadBytes = 4UL << 20;   // records looked at in one step
constexpr std::size_t kListAtOnce = 500;
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

std::string cursor_key(const std::string& namespace_name, const std::string& topic, const Id128& incarnation, std::uint32_t partition) {
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

Task<Result<bool>> caught_up(Context context, Site site) {
  PRISM_CO_TRY(const auto topics, co_await site.topics->known(context));
  for (const auto& name : topics) {
    PRISM_CO_TRY(const auto end, co_await site.log->end(context, name));
    for (const auto& part : end.parts()) {
      PRISM_CO_TRY(const auto cursor,
                   co_await read_cursor(context, site.state, cursor_key(site.namespace_name, name, part.source, part.partition)));
      if (cursor <= part.offset) co_return false;
    }
  }
  co_return true;
}

Cleaner::Cleaner(Site site)
    : site_(std::move(site)),
      info_{.name = site_.namespace_name + "/claim-check/cleaner",
            .shards = 1,
            .interval = site_.options.interval,
            .harmless = "objects are deleted only below the floor of every group, and deleting twice changes nothing"} {}

Task<Result<Round>> Cleaner::round(Context context, std::uint32_t /*shard*/, Grant /*grant*/) {
  Round total;
  PRISM_CO_TRY(const auto topics, co_await site_.topics->known(context));
  for (const auto& name : topics) {
    PRISM_CO_TRY(const auto topic, co_await site_.topics->ensure(context, name));
    std::vector<std::string> groups = site_.groups;
    if (groups.empty()) {
      PRISM_CO_TRY(groups, co_await site_.log->groups(context, name));
    }
    if (groups.empty()) continue;  // nobody has begun to consume: only expiry deletes
    std::vector<std::uint64_t> floor(topic.partitions, UINT64_MAX);
    for (const auto& group : groups) {
      PRISM_CO_TRY(const auto floors, co_await site_.log->floors(context, name, group));
      for (const auto& f : floors) {
        if (f.partition < floor.size()) floor[f.partition] = std::min(floor[f.partition], f.ever_committed ? f.acked_below : 0);
      }
    }
    for (std::uint32_t partition = 0; partition < topic.partitions; ++partition) {
      PRISM_CO_TRY(const auto round, co_await clean(context, topic, partition, floor[partition]));
      total.items += round.items;
      total.more = total.more || round.more;
    }
  }
  co_return total;
}

Task<Result<Round>> Cleaner::clean(Context context, TopicInfo topic, std::uint32_t partition, std::uint64_t floor) {
  Round done;
  const std::string key = cursor_key(site_.namespace_name, topic.name, topic.incarnation, partition);
  PRISM_CO_TRY(std::uint64_t cursor, co_await read_cursor(context, site_.state, key));
  if (floor == UINT64_MAX || cursor >= floor) co_return done;

  PRISM_CO_TRY(auto reader, co_await site_.log->read(context, topic.name, partition, after(topic, partition, cursor)));
  auto records = co_await reader->next(context.with_timeout(kReadPatience), kReadBytes);
  co_await reader->close(context);
  if (!records) co_return std::unexpected(std::move(records).error());
  // Nothing below the floor exists any more (the log's own retention): the objects expire by age.
  std::uint64_t reached = records->empty() ? floor : cursor;
  std::vector<std::string> objects;
  for (const auto& [record, at] : *records) {
    const std::uint64_t offset = at.parts().front().offset;
    if (offset >= floor) {
      reached = floor;
      break;
    }
    reached = offset + 1;
    if (header(record, id_header()).empty()) continue;
    // Another store or bucket: written under an earlier configuration; its objects expire by that store's own rules.
    if (header(record, "prism-claim-check-backend") != site_.options.backend ||
        header(record, "prism-claim-check-bucket") != site_.options.bucket) {
      continue;
    }
    objects.emplace_back(header(record, "prism-claim-check-key"));
  }
  done.items = objects.size();
  if (!objects.empty()) {
    for (auto& removed : co_await site_.store->remove(context, std::move(objects))) PRISM_CO_CHECK(std::move(removed));
  }
  Mutation move{.key = key, .value = Bytes(std::to_string(reached)), .expect = {}, .expect_absent = false, .ttl = {}};
  Batch<Mutation> batch;
  batch.push_back(std::move(move));
  for (auto& written : co_await site_.state->apply(context.shielded(kReadPatience), std::move(batch))) PRISM_CO_CHECK(std::move(written));
  done.more = reached < floor;
  co_return done;
}

Sweeper::Sweeper(Site site)
    : site_(std::move(site)),
      info_{.name = site_.namespace_name + "/claim-check/sweeper",
            .shards = 1,
            .interval = std::clamp<Clock::duration>(site_.options.orphan_age / 4, std::chrono::milliseconds(200), std::chrono::minutes(1)),
            .harmless = "it removes only what is expired or what nothing refers to, and removing twice changes nothing"} {}

Task<Result<std::set<std::string>>> Sweeper::referenced(Context context) {
  std::set<std::string> ids;
  PRISM_CO_TRY(auto pending, co_await site_.pending->claim_check_ids(context));
  ids.insert(std::make_move_iterator(pending.begin()), std::make_move_iterator(pending.end()));
  PRISM_CO_TRY(const auto topics, co_await site_.topics->known(context));
  for (const auto& name : topics) {
    PRISM_CO_TRY(const auto topic, co_await site_.topics->ensure(context, name));
    PRISM_CO_TRY(const auto end, co_await site_.log->end(context, name));
    for (const auto& part : end.parts()) {
      PRISM_CO_TRY(std::uint64_t cursor,
                   co_await read_cursor(context, site_.state, cursor_key(site_.namespace_name, name, topic.incarnation, part.partition)));
      if (cursor > part.offset) continue;
      PRISM_CO_TRY(auto reader, co_await site_.log->read(context, name, part.partition, after(topic, part.partition, cursor)));
      while (cursor <= part.offset) {
        auto records = co_await reader->next(context.with_timeout(kReadPatience), kReadBytes);
        if (!records || records->empty()) {
          co_await reader->close(context);
          if (!records) co_return std::unexpected(std::move(records).error());
          co_return fail(Code::unavailable, "LOG_NOT_READABLE", "records of " + name + " could not be read up to its end", {}, Retry::safe);
        }
        for (const auto& [record, at] : *records) {
          cursor = at.parts().front().offset + 1;
          const auto id = header(record, id_header());
          if (!id.empty()) ids.emplace(id);
        }
      }
      co_await reader->close(context);
    }
  }
  co_return ids;
}

Task<Result<Round>> Sweeper::round(Context context, std::uint32_t /*shard*/, Grant /*grant*/) {
  Round done;
  const WallTime now = wall_now();
  const auto older = [&](WallTime time, Clock::duration age) {
    return now - time > std::chrono::duration_cast<std::chrono::microseconds>(age);
  };
  PRISM_CO_CHECK(co_await site_.store->abort_uploads(
      context, site_.options.prefix, now - std::chrono::duration_cast<std::chrono::microseconds>(site_.options.orphan_age)));

  // Keys sort by time of creation: the walk ends at the first one that is too young for anything.
  std::vector<std::string> garbage;
  std::vector<std::string> candidates;
  std::string last = {};
  for (bool more = true; more;) {
    PRISM_CO_TRY(const auto page, co_await site_.store->list(context, site_.options.prefix, last, kListAtOnce));
    more = page.size() == kListAtOnce;
    for (const auto& object : page) {
      last = object.key;
      const auto made = uuid7_time(std::string_view(object.key).substr(site_.options.prefix.size()));
      if (!made) continue;  // not ours
      if (site_.options.expiry && older(*made, *site_.options.expiry)) {
        garbage.push_back(object.key);
      } else if (!older(*made, site_.options.orphan_age)) {
        more = false;
        break;
      } else if (older(object.modified, site_.options.orphan_age)) {
        candidates.push_back(object.key);
      }
    }
  }
  if (!candidates.empty()) {
    PRISM_CO_TRY(const auto ids, co_await referenced(context));
    for (auto& key : candidates) {
      if (!ids.contains(key.substr(site_.options.prefix.size()))) garbage.push_back(std::move(key));
    }
  }
  done.items = garbage.size();
  while (!garbage.empty()) {
    const std::size_t n = std::min(garbage.size(), kListAtOnce);
    Batch<std::string> some(std::make_move_iterator(garbage.end() - static_cast<std::ptrdiff_t>(n)), std::make_move_iterator(garbage.end()));
    garbage.resize(garbage.size() - n);
    for (auto& removed : co_await site_.store->remove(context, std::move(some))) PRISM_CO_CHECK(std::move(removed));
  }
  co_return done;
}

}  // namespace prism::claim_check
