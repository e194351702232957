# The ledger. Its address, with the password, is the secret ztom-ledger.
resource "google_sql_database_instance" "ledger" {
  name                = "${var.name}-ledger"
  region              = var.region
  database_version    = "POSTGRES_17"
  encryption_key_name = google_kms_crypto_key.main["database"].id
  deletion_protection = true

  settings {
    tier              = var.database_tier
    edition           = "ENTERPRISE"
    availability_type = "REGIONAL"
    disk_type         = "PD_SSD"
    disk_autoresize   = true
    user_labels       = local.labels

    backup_configuration {
      enabled                        = true
      point_in_time_recovery_enabled = true
      transaction_log_retention_days = 7
      start_time                     = "02:00"
    }

    ip_configuration {
      ipv4_enabled    = false
      private_network = google_compute_network.main.id
      ssl_mode        = "ENCRYPTED_ONLY"
    }

    insights_config {
      query_insights_enabled = true
    }

    database_flags {
      name  = "cloudsql.enable_pgaudit"
      value = "on"
    }

    database_flags {
      name  = "log_checkpoints"
      value = "on"
    }

    database_flags {
      name  = "log_connections"
      value = "on"
    }

    database_flags {
      name  = "log_disconnections"
      value = "on"
    }

    database_flags {
      name  = "log_duration"
      value = "on"
    }

    database_flags {
      name  = "log_hostname"
      value = "on"
    }

    database_flags {
      name  = "log_lock_waits"
      value = "on"
    }

    database_flags {
      name  = "log_min_duration_statement"
      value = "-1"
    }

    database_flags {
      name  = "log_min_error_statement"
      value = "error"
    }

    database_flags {
      name  = "log_min_messages"
      value = "error"
    }

    database_flags {
      name  = "log_statement"
      value = "ddl"
    }

    database_flags {
      name  = "pgaudit.log"
      value = "ddl"
    }
  }

  depends_on = [
    google_service_networking_connection.services,
    google_kms_crypto_key_iam_member.users,
  ]
}

resource "google_sql_database" "ledger" {
  name      = "ztom"
  instance  = google_sql_database_instance.ledger.name
  charset   = "UTF8"
  collation = "en_US.UTF8"
}

resource "random_password" "database" {
  length  = 40
  special = false # it stands in an address
}

resource "google_sql_user" "ledger" {
  name     = "ztom"
  instance = google_sql_database_instance.ledger.name
  password = random_password.database.result
}

# What Ray's head knows, so that another head goes on with it.
resource "google_redis_instance" "head" {
  name                    = "${var.name}-head"
  tier                    = "STANDARD_HA"
  memory_size_gb          = var.redis_gb
  region                  = var.region
  redis_version           = "REDIS_7_2"
  authorized_network      = google_compute_network.main.id
  connect_mode            = "PRIVATE_SERVICE_ACCESS"
  auth_enabled            = true
  transit_encryption_mode = "DISABLED" # Ray takes no authority of its own for this
  customer_managed_key    = google_kms_crypto_key.main["redis"].id
  labels                  = local.labels

  persistence_config {
    persistence_mode    = "RDB"
    rdb_snapshot_period = "ONE_HOUR"
  }

  depends_on = [
    google_service_networking_connection.services,
    google_kms_crypto_key_iam_member.users,
  ]
}
