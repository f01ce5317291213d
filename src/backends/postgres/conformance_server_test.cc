// The conformance suites of SqlDatabase, KeyValueStore and Lease on PostgreSQL.
#include "backends/postgres/world_for_test.h"
#include "capabilities/testing/key_value_suite.h"
#include "capabilities/testing/lease_suite.h"
#include "capabilities/testing/sql_database_suite.h"

namespace prism::postgres {
namespace {

class SqlWorld final : public SqlDatabaseBed {
 public:
  SqlDatabase& database() override { return *world_.first().database; }
  SqlDatabase& other() override { return *world_.second().database; }
  void restart() override { world_.restart(); }

 private:
  World world_;
};
class KeyValueWorld final : public KeyValueBed {
 public:
  KeyValueStore& store() override { return *world_.first().store; }
  KeyValueStore& other() override { return *world_.second().store; }
  void restart() override { world_.restart(); }

 private:
  World world_;
};
class LeaseWorld final : public LeaseBed {
 public:
  Lease& lease() override { return *world_.first().lease; }
  Lease& other() override { return *world_.second().lease; }
  SqlDatabase* database() override { return world_.first().database.get(); }
  void restart() override { world_.restart(); }

 private:
  World world_;
};

}  // namespace
}  // namespace prism::postgres

namespace prism {
INSTANTIATE_TEST_SUITE_P(Postgres, SqlDatabaseSuite,
                         ::testing::Values(SqlDatabaseParam{"postgres",
                                                            [] { return std::make_unique<postgres::SqlWorld>(); }}));
INSTANTIATE_TEST_SUITE_P(Postgres, KeyValueSuite,
                         ::testing::Values(KeyValueParam{"postgres",
                                                         [] { return std::make_unique<postgres::KeyValueWorld>(); }}));
INSTANTIATE_TEST_SUITE_P(Postgres, LeaseSuite,
                         ::testing::Values(LeaseParam{"postgres",
                                                      [] { return std::make_unique<postgres::LeaseWorld>(); }}));
}  // namespace prism
