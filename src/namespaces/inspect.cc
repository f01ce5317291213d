// What a namespace holds now, for people.
#include "namespaces/registry.h"

namespace prism {
namespace {

constexpr Clock::duration kReadPatience = std::chrono::seconds(2);  // for a record that is known to exist
constexpr std::size_t kOneRecord = 1;                               // bytes: a reader gives one record at least

Task<Result<std::optional<TopicState::LastRecord>>> last_record(Context context, std::shared_ptr<EventLog> log,
                                                                TopicInfo topic, GroupFloor floor) {
  std::optional<TopicState::LastRecord> last;
  if (floor.end <= floor.begin) co_return last;
  Start start;
  if (floor.end >= 2) start.at = Position(PositionPart{topic.incarnation, floor.partition, floor.end - 2});
  PRISM_CO_TRY(auto reader, co_await log->read(context, topic.name, floor.partition, start));
  auto records = co_await reader->next(context.with_timeout(kReadPatience), kOneRecord);
  co_await reader->close(context);
  if (!records) co_return std::unexpected(std::move(records).error());
  if (records->empty()) co_return last;
  const Record& record = records->front().first;
  std::size_t bytes = record.body.size() + record.id.size() + record.key.size();
  for (const auto& [name, value] : record.headers) bytes += name.size() + value.size();
  last = TopicState::LastRecord{record.id, record.key, record.body.size(), bytes};
  co_return last;
}

}  // namespace

Task<Result<std::vector<PatternState>>> Namespace::inspect(Context context) const {
  std::vector<PatternState> out;
  for (const auto& pattern : patterns_) {
    PRISM_CO_TRY(auto facts, co_await pattern->inspect(context));
    out.push_back({std::string(pattern->info().name), std::move(facts)});
  }
  co_return out;
}

Task<Result<std::vector<TopicState>>> Namespace::topics(Context context) const {
  std::vector<TopicState> out;
  PRISM_CO_TRY(const auto names, co_await present_topics(context));
  for (const auto& name : names) {
    const auto found = co_await log_->topic(context, name);
    if (!found && found.error().code == Code::not_found) continue;  // not made yet
    if (!found) co_return std::unexpected(found.error());
    const TopicInfo& info = *found;
    PRISM_CO_TRY(const auto groups, co_await log_->groups(context, name));
    PRISM_CO_TRY(const auto floors, co_await log_->floors(context, name, "any"));  // any group tells begin and end
    TopicState state{name, {}};
    for (const auto& floor : floors) {
      TopicState::Partition partition{
          .partition = floor.partition, .begin = floor.begin, .end = floor.end, .acked_below = {}, .last = {}};
      PRISM_CO_TRY(partition.last, co_await last_record(context, log_, info, floor));
      state.partitions.push_back(std::move(partition));
    }
    for (const auto& group : groups) {
      PRISM_CO_TRY(const auto of_group, co_await log_->floors(context, name, group));
      for (const auto& floor : of_group) {
        for (auto& partition : state.partitions) {
          if (partition.partition == floor.partition) partition.acked_below.emplace_back(group, floor.acked_below);
        }
      }
    }
    out.push_back(std::move(state));
  }
  co_return out;
}

}  // namespace prism
