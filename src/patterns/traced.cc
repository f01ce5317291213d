#include "patterns/traced.h"

#include <utility>

namespace prism {
namespace {

constexpr std::string_view kProcessPublish = "process_publish";

class Enclosing final : public Publisher {
 public:
  Enclosing(std::unique_ptr<Publisher> chain, std::string_view pattern) : chain_(std::move(chain)), pattern_(pattern) {}

  Task<Batch<Result<Appended>>> publish(Context context, Batch<Message> messages) override {
    if (!context.trace().recorded) return chain_->publish(std::move(context), std::move(messages));
    return traced(std::move(context), std::move(messages));
  }

 private:
  Task<Batch<Result<Appended>>> traced(Context context, Batch<Message> messages) {
    trace::Span span = begin_pattern_span(context, pattern_, kProcessPublish);
    if (messages.size() != 1) span.set("messaging.batch.message_count", messages.size());
    auto results = co_await chain_->publish(span.context(context), std::move(messages));
    for (const auto& result : results) {
      if (!result) span.fail(result.error());
    }
    co_return results;
  }

  std::unique_ptr<Publisher> chain_;
  const std::string pattern_;
};

}  // namespace

std::string pattern_span_name(std::string_view pattern, std::string_view method) {
  std::string name;
  bool upper = true;
  for (const char c : pattern) {
    if (c == '-') {
      upper = true;
      continue;
    }
    name += upper && c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    upper = false;
  }
  name += "Pattern.";
  name += method;
  return name;
}

trace::Span begin_pattern_span(const Context& context, std::string_view pattern, std::string_view method) {
  if (!context.trace().recorded) return {};
  trace::Span span = trace::Span::begin(context, pattern_span_name(pattern, method), trace::Layer::pattern);
  span.set("prism.pattern", pattern);
  return span;
}

std::unique_ptr<Publisher> make_enclosing(std::unique_ptr<Publisher> chain, std::string_view pattern) {
  return std::make_unique<Enclosing>(std::move(chain), pattern);
}

}  // namespace prism
